"""What the node tells of itself every few seconds."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import psycopg

from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.contracts.delivery import Heartbeat
from aiida_byoc.node import NodeSettings
from aiida_byoc.runtimes import RUNTIMES, missing

__all__ = ["heartbeat"]

_COUNTS = """
SELECT (SELECT count(*) FROM byoc.job WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held')),
       (SELECT coalesce(sum(latest_seq - acked_seq), 0) FROM byoc.stream
        WHERE acked_seq < latest_seq AND quarantine IS NULL),
       (SELECT coalesce(extract(epoch FROM now() - min(event.occurred_at)), 0)
        FROM byoc.stream JOIN byoc.event ON event.submission_id = stream.submission_id
            AND event.seq = stream.acked_seq + 1
        WHERE acked_seq < latest_seq AND quarantine IS NULL),
       (SELECT count(*) FROM byoc.stream WHERE quarantine IS NOT NULL),
       byoc.epoch(),
       (SELECT coalesce(jsonb_object_agg(kind, count), '{}') FROM byoc.repair)
"""


def heartbeat(connection: psycopg.Connection, settings: NodeSettings) -> Heartbeat:
    """Versions, what the policy offers, and how much work is under way."""
    row = connection.execute(_COUNTS).fetchone()
    active, undelivered, oldest, quarantined, epoch, repairs = row or (0, 0, 0, 0, None, {})
    try:
        queues = sorted(Policy.load(settings.policy_file).queues)
    except PolicyError:
        queues = []  # the agent's log says why; a node without a policy offers nothing
    return Heartbeat(
        sent_at=datetime.now(UTC),
        versions={
            "aiida-byoc": version("aiida-byoc"),
            "aiida-core": version("aiida-core"),
            "python": platform.python_version(),
        },
        queues=queues,
        runtimes=sorted(name for name in RUNTIMES if not missing(name)),
        jobs_active=int(active),
        events_undelivered=int(undelivered),
        oldest_undelivered_seconds=max(0, int(oldest)),
        epoch=epoch,
        jobs_quarantined=int(quarantined),
        repairs=repairs,
    )
