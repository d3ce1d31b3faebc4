"""Forgetting what ended long ago, as far as the owner's policy wants it; by default everything is kept.

Of a forgotten job the claim stays for good (key, fingerprint, ids, and what the acceptance said), so that a repetition
hears the same and no key or job is ever used twice. So does its last event, which holds the job's full state.
"""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg

from aiida_byoc import crashpoints
from aiida_byoc.commands.policy import Policy, PolicyError

__all__ = ["forget", "forget_by_policy"]

_LOGGER = logging.getLogger(__name__)
_JOBS_AT_ONCE = 100
_IDLE_SECONDS = 60.0

_FORGET = """
WITH chosen AS (
    SELECT job.submission_id, job.seq FROM byoc.job
    JOIN byoc.stream USING (submission_id)
    JOIN byoc.event ON event.submission_id = job.submission_id AND event.seq = job.seq
    WHERE job.command IS NOT NULL AND job.state IN ('succeeded', 'failed', 'cancelled')
      AND job.accepted_at < now() - %(days)s * interval '1 day'
      AND event.occurred_at < now() - %(days)s * interval '1 day'
      AND stream.acked_seq >= stream.latest_seq AND stream.quarantine IS NULL
    ORDER BY job.accepted_at LIMIT %(most)s FOR UPDATE OF job, stream SKIP LOCKED
), events AS (
    DELETE FROM byoc.event USING chosen
    WHERE event.submission_id = chosen.submission_id AND event.seq < chosen.seq
), plays AS (
    DELETE FROM byoc.play USING chosen WHERE play.submission_id = chosen.submission_id
)
UPDATE byoc.job SET command = NULL, placement = NULL, snapshot = '{}'
FROM chosen WHERE job.submission_id = chosen.submission_id
"""
"""Small batches: neither relay nor hooks wait long, and what is interrupted goes on with the next."""


def forget(connection: psycopg.Connection, days: int) -> bool:
    """Forget some of the jobs that ended so many days ago and that the product has in full; say whether more wait.

    A job whose events are undelivered or quarantined is kept until they are settled.
    """
    with connection.transaction():
        forgotten = connection.execute(_FORGET, {"days": days, "most": _JOBS_AT_ONCE}).rowcount
        if forgotten:
            crashpoints.reached("retention.deleted")
    if forgotten:
        _LOGGER.info("Jobs forgotten event=jobs_forgotten count=%s days=%s", forgotten, days)
    return forgotten == _JOBS_AT_ONCE


def forget_by_policy(connection: psycopg.Connection, policy_file: Path) -> float:
    """One round of the agent's loop; return how long to wait before the next, in seconds."""
    try:
        days = Policy.load(policy_file).retention.days
    except PolicyError as error:
        _LOGGER.error("nothing is forgotten: %s", error)  # noqa: TRY400
        return _IDLE_SECONDS
    return 0.0 if days is not None and forget(connection, days) else _IDLE_SECONDS
