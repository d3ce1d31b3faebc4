"""Which accepted job may be launched now: as many at a time as the policy allows, and no tenant in another's way.

A job takes two slots of the workers, one for its work chain and one for its calculation. Work chains that fill all
slots would wait for ever for calculations that find none, so the rest waits in the ledger.

Of the tenants that have a job ready and room for it, the one with the fewest under way for its weight comes first; of
several such the one whose job is the oldest. So a tenant with none under way is before all that have some, however many
wait, and none starves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.quotas import Quotas

__all__ = ["SLOTS_OPTION", "SLOTS_PER_JOB", "bounded", "next_job"]

SLOTS_PER_JOB = 2
"""Slots of AiiDA's workers that a launched job may hold at a time."""

SLOTS_OPTION = "daemon.worker_process_slots"
"""AiiDA's option for the slots of one worker."""

_ONE_AT_A_TIME = 0x62796F65

_BEGIN = """
SELECT pg_try_advisory_xact_lock(%s), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
       set_config('jit', 'off', true),
       (SELECT tenant_id FROM byoc.job WHERE state = 'accepted' ORDER BY tenant_id LIMIT 1)
"""
"""Statistics of a queue are always stale; a planner that believes them reads all that waits, and sorts it. What it
cannot do without seems very dear then, and is not to be compiled. Where nobody waits, as most of the time, that is all
that is asked."""

_AS_BEFORE = """
SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL enable_bitmapscan TO DEFAULT; SET LOCAL enable_sort TO DEFAULT;
SET LOCAL jit TO DEFAULT
"""

# `waiting` hops from tenant to tenant in the index: it costs as many probes as there are tenants, not jobs. What a job
# waits for is asked by aggregates, which the planner cannot turn into a join with all jobs that wait; in the end each
# tenant's oldest is looked up by its key, and no index has the state as text.
_NEXT = """
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM byoc.job WHERE state = 'accepted' ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT job.tenant_id FROM byoc.job WHERE state = 'accepted' AND job.tenant_id > waiting.tenant_id
            ORDER BY job.tenant_id LIMIT 1)
    FROM waiting WHERE waiting.tenant_id IS NOT NULL
), active AS (
    SELECT tenant_id, count(*) AS jobs FROM byoc.job
    WHERE state IN ('launched', 'queued', 'running', 'held') GROUP BY tenant_id
), candidate AS (
    SELECT waiting.tenant_id, coalesce(active.jobs, 0) / coalesce(own.weight, %(weight)s::float8) AS share
    FROM waiting LEFT JOIN active USING (tenant_id)
    LEFT JOIN jsonb_to_recordset(%(tenants)s) AS own (tenant_id text, running integer, weight float8)
        USING (tenant_id)
    WHERE waiting.tenant_id IS NOT NULL
      AND coalesce(active.jobs, 0) < coalesce(own.running, %(running)s, %(active_jobs)s)
      AND (SELECT coalesce(sum(jobs), 0) FROM active) < %(active_jobs)s
), oldest AS (
    SELECT array_agg(its.submission_id ORDER BY share, its.accepted_at) AS ids
    FROM candidate CROSS JOIN LATERAL (
        SELECT each.submission_id, each.accepted_at FROM byoc.job AS each
        WHERE each.tenant_id = candidate.tenant_id AND each.state = 'accepted' AND each.launch_not_before <= now()
          AND (each.deadline IS NULL OR each.deadline > now())
          AND (SELECT count(*) FROM byoc.image_pull AS pull WHERE pull.digest = each.placement ->> 'image_digest'
               AND pull.repository = each.placement #>> '{pull,repository}') = 0
          AND (SELECT count(*) FROM byoc.input_fetch WHERE input_fetch.submission_id = each.submission_id) = 0
          AND NOT (each.reads_jobs AND (
              SELECT bool_or(earlier.state <> 'succeeded') FROM byoc.depends
              JOIN byoc.job AS earlier ON earlier.submission_id = earlier_id
              WHERE depends.submission_id = each.submission_id))
        ORDER BY each.accepted_at LIMIT 1
    ) AS its
)
SELECT * FROM byoc.job
WHERE submission_id = ANY((SELECT ids FROM oldest)::uuid[]) AND state::text = 'accepted'
ORDER BY array_position((SELECT ids FROM oldest), submission_id) LIMIT 1 FOR UPDATE SKIP LOCKED
"""

# The deadline of a job, and the end of one whose output it reads, count though its tenant has no room, or its image is
# not there yet.
_PAST_DEADLINE = """
SELECT * FROM byoc.job WHERE state = 'accepted' AND launch_not_before <= now() AND deadline <= now()
ORDER BY deadline LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_READS_NOTHING = """
SELECT * FROM byoc.job WHERE state = 'accepted' AND launch_not_before <= now() AND reads_jobs
  AND (SELECT bool_or(earlier.state IN ('failed', 'cancelled')) FROM byoc.depends
       JOIN byoc.job AS earlier ON earlier.submission_id = earlier_id
       WHERE depends.submission_id = job.submission_id)
ORDER BY accepted_at LIMIT 1 FOR UPDATE OF job SKIP LOCKED
"""

_IN_SLURM = """
SELECT coalesce(sum(CASE WHEN command #>> '{workload,kind}' = 'workchain'
                         THEN greatest(1, byoc.calculations(process_pk))
                         ELSE coalesce((placement ->> 'elements')::integer, 1) END), 0)
FROM byoc.job WHERE state IN ('launched', 'queued', 'running', 'held')
"""


def bounded(limits: Limits, slots: int) -> Limits:
    """The owner's limits, and no more jobs than one worker has slots for: the others may die, or not be started."""
    return limits.model_copy(
        update={"active_jobs": min(limits.active_jobs, slots // SLOTS_PER_JOB)}
    )


def next_job(
    connection: psycopg.Connection,
    limits: Limits,
    quotas: Quotas | None = None,
    *,
    hopeless_first: bool = False,
) -> Mapping[str, Any] | None:
    """Lock and return the ledger's row of the job that is next: it has room and all it needs, or cannot have it.

    Counting and launching are one transaction under one lock, so that two launchers together keep the limits;
    `None` also while another launcher holds it.

    Args:
        hopeless_first: look for jobs that can only be failed before those that can be launched. Whoever asks takes
            turns, so that many of one kind do not keep the other waiting.
    """
    # A statement of its own: the next one's snapshot must be younger than the lock.
    lock = connection.execute(_BEGIN, (_ONE_AT_A_TIME,)).fetchone()
    if lock is None or not lock[0] or lock[-1] is None:
        return None
    kinds = [_launchable, _hopeless]
    for find in reversed(kinds) if hopeless_first else kinds:
        job = find(connection, limits, quotas or Quotas())
        if job is not None:
            connection.execute(_AS_BEFORE)  # its launch goes on in this transaction
            return job
    return None


def _launchable(
    connection: psycopg.Connection, limits: Limits, quotas: Quotas
) -> Mapping[str, Any] | None:
    """The job that has its turn, and room."""
    if limits.slurm_jobs is not None:
        row = connection.execute(_IN_SLURM).fetchone()
        if row is not None and row[0] >= limits.slurm_jobs:
            return None
    own = [{"tenant_id": name, **each.model_dump()} for name, each in quotas.tenants.items()]
    parameters = {
        "active_jobs": limits.active_jobs,
        "running": quotas.running or limits.active_jobs_per_tenant,
        "weight": quotas.weight,
        "tenants": Jsonb(own),
    }
    return connection.cursor(row_factory=dict_row).execute(_NEXT, parameters).fetchone()


def _hopeless(
    connection: psycopg.Connection, _limits: Limits, _quotas: Quotas
) -> Mapping[str, Any] | None:
    """A job whose deadline has passed, or whose input will never be there."""
    rows = connection.cursor(row_factory=dict_row)
    late = rows.execute(_PAST_DEADLINE).fetchone()
    return late or rows.execute(_READS_NOTHING).fetchone()
