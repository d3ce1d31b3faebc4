"""What the ledger, AiiDA's nodes, the tasks and the streams say of each job under way; read in a few statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import class_row

from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.quotas import Quotas
from aiida_byoc.events import standing
from aiida_byoc.events.standing import Standing

__all__ = ["Case", "Job", "Situation", "Stream", "cases", "streams"]

_JOBS = """
SELECT job.tenant_id, job.job_id, job.submission_id::text, job.state::text, job.attempt, job.launch_failures,
       extract(epoch FROM now() - (
           SELECT min(same.occurred_at) FROM byoc.event AS same WHERE same.submission_id = job.submission_id
           AND same.seq > coalesce((SELECT max(other.seq) FROM byoc.event AS other
               WHERE other.submission_id = job.submission_id AND other.body #>> '{data,state}' <> job.state::text), 0)
       ))::integer AS age,
       extract(epoch FROM now() - job.cancel_requested_at)::integer AS cancel_age,
       (job.command #>> '{resource_shape,walltime_seconds}')::integer AS walltime,
       event.body #>> '{data,reason}' AS reason,
       event.body #>> '{data,scheduler,wait_reason}' AS wait_reason,
       event.body #>> '{data,scheduler,job_id}' AS slurm_job,
       coalesce((SELECT max(plays) FROM byoc.play WHERE play.submission_id = job.submission_id), 0) AS plays,
       pull.repository || '@' || pull.digest AS pull, coalesce(pull.message, 'it takes long') AS pull_message,
       (SELECT coalesce(message, 'it takes long') FROM byoc.input_fetch AS fetched
        WHERE job.state = 'accepted' AND fetched.submission_id = job.submission_id ORDER BY sha256 LIMIT 1) AS fetch,
       (SELECT earlier.job_id FROM byoc.depends JOIN byoc.job AS earlier ON earlier.submission_id = earlier_id
        WHERE job.state = 'accepted' AND depends.submission_id = job.submission_id AND earlier.state <> 'succeeded'
        ORDER BY earlier.accepted_at LIMIT 1) AS earlier,
       count(*) FILTER (WHERE job.state <> 'accepted') OVER () AS active,
       count(*) FILTER (WHERE job.state <> 'accepted') OVER (PARTITION BY job.tenant_id) AS active_of_tenant
FROM byoc.job JOIN byoc.event USING (submission_id, seq)
LEFT JOIN byoc.image_pull AS pull ON job.state = 'accepted' AND pull.digest = job.placement ->> 'image_digest'
    AND pull.repository = job.placement #>> '{pull,repository}'
WHERE job.state IN ('accepted', 'launched', 'queued', 'running', 'held')
ORDER BY job.accepted_at
"""

_ATTEMPTS = """
SELECT input_id, max(output_id) FROM db_dblink WHERE input_id = ANY(%s) AND type = 'call_calc' GROUP BY input_id
"""

_TASKS = """
SELECT process_pk, CASE
    WHEN owner IS NULL AND not_before > now()
        THEN 'is put off until ' || not_before::timestamptz(0) || ', its workers died ' || attempts || ' times'
    WHEN owner IS NULL AND not_before < now() - interval '30 s' THEN 'waits for a worker'
    WHEN lease_until < now() - interval '30 s' THEN 'belongs to a worker that is dead'
END
FROM byoc.task LEFT JOIN byoc.worker ON worker_id = owner WHERE process_pk = ANY(%s)
"""

_STREAMS = """
SELECT job.tenant_id, job.job_id, job.state::text, stream.quarantine ->> 'code' AS code,
       stream.quarantine ->> 'message' AS message, stream.latest_seq - stream.acked_seq AS waiting,
       extract(epoch FROM now() - coalesce(stream.quarantined_at, (
           SELECT occurred_at FROM byoc.deliverable AS next
           WHERE next.submission_id = stream.submission_id AND next.seq > stream.acked_seq ORDER BY next.seq LIMIT 1
       )))::integer AS age
FROM byoc.stream JOIN byoc.job USING (submission_id)
WHERE stream.acked_seq < stream.latest_seq
ORDER BY age DESC NULLS LAST LIMIT 1000
"""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known of the node as a whole.

    Attributes:
        has_agent: whether the agent runs, and with it launcher and relay.
        has_tasks: whether the broker keeps its tasks in our tables.
        trouble: why nothing is delivered, if so.
        max_plays: how often a paused process is played again.
    """

    limits: Limits
    max_plays: int
    has_agent: bool
    has_tasks: bool
    quotas: Quotas = field(default_factory=Quotas)
    trouble: str | None = None


@dataclass(frozen=True)
class Job:
    """A job that has not ended, and how many launched ones there are beside it; ages are in seconds.

    Attributes:
        pull: the image that it waits for.
        fetch: if it waits for a file that is to be fetched, why that is not there.
        earlier: the job whose output it waits for.
    """

    tenant_id: str
    job_id: str
    submission_id: str
    state: str
    attempt: int
    launch_failures: int
    age: int
    cancel_age: int | None
    walltime: int | None
    reason: str | None
    wait_reason: str | None
    slurm_job: str | None
    plays: int
    pull: str | None
    pull_message: str
    fetch: str | None
    earlier: str | None
    active: int
    active_of_tenant: int


@dataclass(frozen=True)
class Case:
    """A job, what AiiDA's nodes say of it, and the node it is on.

    Attributes:
        processes: pks of its processes that live: work chain, then newest attempt.
        tasks: of each process that has one, what is wrong with its task, if anything.
    """

    job: Job
    nodes: Standing | None
    processes: list[int]
    tasks: Mapping[int, str | None]
    situation: Situation


@dataclass(frozen=True)
class Stream:
    """A job of which the product lacks something; `age` of what it lacks, in seconds."""

    tenant_id: str
    job_id: str
    state: str
    code: str | None
    message: str | None
    waiting: int
    age: int | None


def cases(connection: psycopg.Connection, situation: Situation) -> list[Case]:
    """Every job that has not ended, the one accepted first coming first."""
    nodes = {each.submission_id: each for each in standing.active(connection)}
    living = _living(connection, nodes)
    processes = [pk for pks in living.values() for pk in pks]
    tasks: dict[int, str | None] = dict(connection.execute(_TASKS, (processes,)).fetchall())
    jobs = connection.cursor(row_factory=class_row(Job)).execute(_JOBS).fetchall()
    return [
        Case(
            job,
            nodes.get(job.submission_id),
            living.get(job.submission_id, []),
            tasks,
            situation,
        )
        for job in jobs
    ]


def streams(connection: psycopg.Connection) -> list[Stream]:
    """Jobs of which the product lacks something, the longest first, at most a thousand."""
    return connection.cursor(row_factory=class_row(Stream)).execute(_STREAMS).fetchall()


def _living(connection: psycopg.Connection, nodes: Mapping[str, Standing]) -> dict[str, list[int]]:
    """The processes of each job that have not ended."""
    chains = [each.process_pk for each in nodes.values()]
    attempts: dict[int, int] = dict(connection.execute(_ATTEMPTS, (chains,)).fetchall())
    ended = {"finished", "excepted", "killed", None}
    living = {}
    for submission, each in nodes.items():
        pks = [each.process_pk] if each.chain_state not in ended else []
        if each.attempt_state not in ended and each.process_pk in attempts:
            pks.append(attempts[each.process_pk])
        living[submission] = pks
    return living
