"""Which accepted job may be launched now: as many at a time as the policy allows, and no tenant in another's way.

A job takes two slots of the workers, one for its work chain and one for its calculation. Work chains that fill all
slots would wait for ever for calculations that find none, so the rest waits in the ledger, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.commands.housekeeping import Limits

__all__ = ["SLOTS_OPTION", "SLOTS_PER_JOB", "bounded", "next_job"]

SLOTS_PER_JOB = 2
"""Slots of AiiDA's workers that a launched job may hold at a time."""

SLOTS_OPTION = "daemon.worker_process_slots"
"""AiiDA's option for the slots of one worker."""

_ONE_AT_A_TIME = 0x62796F65

# The deadline of a job, and the end of one whose output it reads, count though its tenant has no room, or its image is
# not there yet.
_NEXT = """
WITH active AS (
    SELECT tenant_id, count(*) AS jobs FROM byoc.job
    WHERE state IN ('launched', 'queued', 'running', 'held') GROUP BY tenant_id
)
SELECT job.* FROM byoc.job LEFT JOIN active USING (tenant_id)
WHERE job.state = 'accepted' AND job.launch_not_before <= now()
  AND (job.deadline <= now()
       OR EXISTS (SELECT FROM byoc.depends JOIN byoc.job AS earlier ON earlier.submission_id = earlier_id
                  WHERE depends.submission_id = job.submission_id AND earlier.state IN ('failed', 'cancelled'))
       OR NOT EXISTS (SELECT FROM byoc.image_pull AS pull WHERE pull.digest = job.placement ->> 'image_digest'
                      AND pull.repository = job.placement #>> '{pull,repository}')
       AND NOT EXISTS (SELECT FROM byoc.depends JOIN byoc.job AS earlier ON earlier.submission_id = earlier_id
                       WHERE depends.submission_id = job.submission_id AND earlier.state <> 'succeeded')
       AND NOT EXISTS (SELECT FROM byoc.input_fetch WHERE input_fetch.submission_id = job.submission_id)
       AND coalesce(active.jobs, 0) < coalesce(%(active_jobs_per_tenant)s, %(active_jobs)s)
       AND (SELECT coalesce(sum(jobs), 0) FROM active) < %(active_jobs)s)
ORDER BY job.accepted_at LIMIT 1 FOR UPDATE OF job SKIP LOCKED
"""


def bounded(limits: Limits, slots: int) -> Limits:
    """The owner's limits, and no more jobs than one worker has slots for: the others may die, or not be started."""
    return limits.model_copy(
        update={"active_jobs": min(limits.active_jobs, slots // SLOTS_PER_JOB)}
    )


def next_job(connection: psycopg.Connection, limits: Limits) -> Mapping[str, Any] | None:
    """Lock and return the ledger's row of the oldest accepted job that has room and all it needs, or cannot have it.

    Counting and launching are one transaction under one lock, so that two launchers together keep the limits;
    `None` also while another launcher holds it.
    """
    # A statement of its own: the next one's snapshot must be younger than the lock.
    lock = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,)).fetchone()
    if lock is None or not lock[0]:
        return None
    rows = connection.cursor(row_factory=dict_row)
    return rows.execute(_NEXT, limits.model_dump()).fetchone()
