"""What the node tells of itself every few seconds."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.agent.inventory import Inventory
from aiida_byoc.commands.draining import is_draining
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.commands.signatures import KeysError, load_product_keys
from aiida_byoc.contracts.delivery import Heartbeat
from aiida_byoc.node import NodeSettings
from aiida_byoc.runtimes import RUNTIMES, missing

__all__ = ["SKEW_SECONDS", "Pulse"]

SKEW_SECONDS = 30.0
"""Half of what the adapter forgives a clock."""

_STARTING_SECONDS = 60.0
"""So long an agent that has just begun does not miss the launcher."""

# The event of a job that waits is a subquery of its own: a join reads all events that ever were.
_COUNTS = """
SELECT active, launched, active - running - held AS waiting, running,
       (SELECT coalesce(sum(latest_seq - acked_seq), 0) FROM byoc.stream
        WHERE acked_seq < latest_seq AND quarantine IS NULL) AS undelivered,
       (SELECT coalesce(extract(epoch FROM now() - min((
            SELECT occurred_at FROM byoc.event
            WHERE event.submission_id = stream.submission_id AND event.seq = stream.acked_seq + 1))), 0)
        FROM byoc.stream WHERE acked_seq < latest_seq AND quarantine IS NULL) AS oldest,
       (SELECT count(*) FROM byoc.stream WHERE quarantine IS NOT NULL) AS quarantined,
       byoc.epoch() AS epoch,
       (SELECT coalesce(jsonb_object_agg(kind, count), '{}') FROM byoc.repair) AS repairs,
       EXISTS (SELECT FROM byoc.worker)
           AND NOT EXISTS (SELECT FROM byoc.worker WHERE lease_until > now() AND fenced_at IS NULL) AS no_worker,
       NOT EXISTS (SELECT FROM pg_stat_activity
           WHERE application_name = 'byoc-launcher' AND datname = current_database()) AS no_launcher,
       EXISTS (SELECT FROM byoc.relay_trouble) AS no_relay
FROM (SELECT count(*) AS active FROM byoc.job
      WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held')) AS unfinished,
     (SELECT count(*) AS launched, count(*) FILTER (WHERE state = 'running') AS running,
             count(*) FILTER (WHERE state = 'held') AS held
      FROM byoc.job WHERE state IN ('launched', 'queued', 'running', 'held')) AS under_way
"""


class Pulse:
    """The heartbeats of one agent.

    Args:
        settings: the node's.
        inventory: what the cluster has; without one the heartbeats say nothing of it.

    Attributes:
        skew: this machine's clock minus the adapter's in seconds, as the last answer told.
    """

    def __init__(self, settings: NodeSettings, inventory: Inventory | None = None) -> None:
        self._settings = settings
        self._inventory = inventory
        self._began = time.monotonic()
        self.skew: float | None = None

    def heartbeat(self, connection: psycopg.Connection) -> Heartbeat:
        """Versions, what the policy offers, what the cluster has, how much work is under way, and what is wrong."""
        with connection.transaction():
            # Statistics of a queue are always stale: what waits is found by its index, not among all that ever did.
            # Tables without an index seem very dear then, which must not have the statement compiled.
            connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL jit = off")
            counts = connection.cursor(row_factory=dict_row).execute(_COUNTS).fetchone() or {}
        try:
            policy = Policy.load(self._settings.policy_file)
        except PolicyError:
            policy = None  # the agent's log says why; a node without a policy offers nothing
        draining = is_draining(connection)
        partitions = slots = None
        if policy is not None:
            used = {queue.partition for queue in policy.queues.values()}
            partitions = self._inventory.partitions(used) if self._inventory else None
            free = max(0, policy.limits.active_jobs - counts["launched"])
            slots = 0 if draining else free
        return Heartbeat(
            sent_at=datetime.now(UTC),
            versions={
                "aiida-byoc": version("aiida-byoc"),
                "aiida-core": version("aiida-core"),
                "python": platform.python_version(),
            },
            queues=sorted(policy.queues) if policy else [],
            runtimes=sorted(name for name in RUNTIMES if not missing(name)),
            jobs_active=counts["active"],
            events_undelivered=int(counts["undelivered"]),
            oldest_undelivered_seconds=max(0, int(counts["oldest"])),
            draining=draining,
            epoch=counts["epoch"],
            jobs_quarantined=counts["quarantined"],
            repairs=counts["repairs"],
            partitions=partitions,
            jobs_waiting=counts["waiting"],
            jobs_running=counts["running"],
            slots_free=slots,
            clock_skew_seconds=None if self.skew is None else round(self.skew, 3),
            trouble=self._trouble(counts, policy),
        )

    def _trouble(self, counts: dict[str, Any], policy: Policy | None) -> list[str]:
        """What does not work now, in a word each."""
        is_up = time.monotonic() - self._began > _STARTING_SECONDS
        wrong = {
            "policy": policy is None,
            "slurm": self._inventory is not None and self._inventory.fails,
            "daemon": counts["no_worker"],
            "launcher": is_up and counts["no_launcher"],
            "relay": counts["no_relay"],
            "clock": abs(self.skew or 0.0) > SKEW_SECONDS,
            "signatures": not self._has_its_product_keys(),
        }
        return [word for word, is_wrong in wrong.items() if is_wrong]

    def _has_its_product_keys(self) -> bool:
        if self._settings.product_keys_file is None:
            return True
        try:
            return bool(load_product_keys(self._settings.product_keys_file))
        except KeysError:
            return False
