"""Where jobs stand by AiiDA's own nodes: what a resumed job has to tell, and what the sweep compares with the ledger.

One statement reads ledger and nodes, so it sees each hook's commit whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox
from aiida_byoc.events.outbox import Report
from aiida_byoc.schedulers.options import job_name
from aiida_byoc.schedulers.slurm import slurm_id

__all__ = ["HELD", "Busy", "Standing", "active", "go_on", "is_cancelled", "locked", "of_processes"]

HELD = "byoc_held"
"""Extra of a calculation whose witnesses leave doubt: why. Written and removed with the events that say so."""

_TERMINAL = frozenset({"finished", "excepted", "killed"})
_ORDER = {"launched": 0, "queued": 1, "running": 2}
_IN_SLURM = {"queued": 1, "queued held": 1, "running": 2, "suspended": 2}
"""AiiDA's words for Slurm's state (`JobState`). `done` is left out: an end is told by the work chain."""

# Attempts follow each other, so only the newest can hold the job.
_STANDING = """
SELECT job.submission_id::text, job.state::text, job.held_from::text, job.attempt AS told_attempt, job.process_pk,
       job.cancel_requested_at IS NOT NULL AS is_cancelled,
       chain.attributes ->> 'process_state' AS chain_state,
       coalesce(chain.attributes -> 'paused' = 'true', false) AS is_chain_paused,
       chain.attributes ->> 'process_status' AS chain_status,
       coalesce(newest.attempt, 0) AS attempt,
       newest.attributes ->> 'process_state' AS attempt_state,
       coalesce(newest.attributes -> 'paused' = 'true', false) AS is_attempt_paused,
       newest.attributes ->> 'process_status' AS attempt_status,
       newest.extras ->> 'byoc_held' AS doubt,
       newest.attributes ->> 'scheduler_state' AS slurm_state,
       newest.attributes ->> 'job_id' AS slurm_job,
       newest.attributes ->> 'queue_name' AS queue,
       newest.attributes ->> 'custom_scheduler_commands' AS directives,
       newest.attributes -> 'recovery' AS recovery,
       newest.attributes -> 'last_job_info' ->> 'allocated_machines_raw' AS machines,
       coalesce(chain.process_type = 'aiida.workflows:byoc.workchain', false) AS is_foreign,
       below.id AS paused_below, below.attributes ->> 'process_status' AS below_status
FROM byoc.job
LEFT JOIN db_dbnode AS chain ON chain.id = job.process_pk
LEFT JOIN LATERAL (
    SELECT substring(link.label FROM '^iteration_([0-9]+)$')::integer AS attempt, child.attributes, child.extras
    FROM db_dblink AS link JOIN db_dbnode AS child ON child.id = link.output_id
    WHERE link.input_id = job.process_pk AND link.type = 'call_calc' ORDER BY attempt DESC NULLS LAST LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT node.id, node.attributes FROM byoc.descendants(job.process_pk) JOIN db_dbnode AS node ON node.id = process_pk
    WHERE chain.process_type = 'aiida.workflows:byoc.workchain' AND node.attributes -> 'paused' = 'true'
    AND node.attributes ->> 'process_state' NOT IN ('finished', 'excepted', 'killed') ORDER BY node.id LIMIT 1
) AS below ON true
WHERE job.process_pk IS NOT NULL AND job.state IN ('launched', 'queued', 'running', 'held')
"""
_OF_JOB = f"{_STANDING} AND job.submission_id = %s"
_FAMILY = """(
    SELECT unnest(%(processes)s::bigint[])
    UNION SELECT caller.process_pk FROM unnest(%(processes)s::bigint[]) AS process, byoc.ancestors(process) AS caller
)"""
_OF_PROCESSES = f"{_STANDING} AND job.process_pk IN {_FAMILY}"
_LOCK = "SELECT FROM byoc.job WHERE submission_id = %s FOR NO KEY UPDATE"


class Busy(Exception):
    """Somebody is telling something of the job."""


@dataclass(frozen=True)
class Standing:
    """A job under way: what was told last, and what its nodes say now.

    Attributes:
        is_cancelled: whether somebody asked for its end.
        chain_state: of the work chain; `None` when the node is not there.
        attempt: number of the newest attempt; 0 before the first.
        doubt: why the attempt's witnesses leave doubt.
        is_foreign: whether it is an approved work chain, whose processes are other plugins'.
        paused_below: a process of such a work chain that is paused.
    """

    submission_id: str
    state: str
    held_from: str | None
    told_attempt: int
    process_pk: int
    is_cancelled: bool
    chain_state: str | None
    is_chain_paused: bool
    chain_status: str | None
    attempt: int
    attempt_state: str | None
    is_attempt_paused: bool
    attempt_status: str | None
    doubt: str | None
    slurm_state: str | None
    slurm_job: str | None
    queue: str | None
    directives: str | None
    recovery: dict[str, Any] | None
    machines: str | None
    is_foreign: bool
    paused_below: int | None
    below_status: str | None

    @property
    def has_ended(self) -> bool:
        """Whether its work chain has."""
        return self.chain_state in _TERMINAL

    @property
    def hold(self) -> str | None:
        """Why the job needs attention: it does as long as any of its processes does."""
        if self.chain_state is None:
            return f"the work chain <{self.process_pk}> is no longer in AiiDA"
        if self.is_chain_paused:
            return self.chain_status or "the work chain is paused"
        if self.paused_below is not None:
            return self.below_status or f"process {self.paused_below} of the work chain is paused"
        if self.attempt_state in _TERMINAL:
            return None
        if self.is_attempt_paused:
            return self.attempt_status or f"attempt {self.attempt} is paused"
        return self.doubt

    @property
    def untold(self) -> str | None:
        """In one word what the last event does not say; `None` when it says all."""
        if self.has_ended:
            return "ended"
        if (self.hold is not None) != (self.state == ExecutionState.HELD):
            return "held" if self.hold else "resumed"
        reached = _IN_SLURM.get(self.slurm_state or "", 0)
        told = self.held_from or self.state
        if (
            self.hold is None
            and reached
            and (self.told_attempt, _ORDER[told]) < (self.attempt, reached)
        ):
            return "running" if reached == _ORDER["running"] else "queued"
        return None

    def reports(self) -> list[Report]:
        """What the newest attempt has reached in Slurm; the outbox drops what was told before."""
        if self.slurm_state is None or self.attempt_state in _TERMINAL:
            return []
        facts: dict[str, Any] = {
            "scheduler": {
                "job_id": slurm_id(self.slurm_job or ""),
                "name": job_name(self.directives or ""),
                "queue": self.queue,
            }
        }
        if self.recovery:
            facts["recovery"] = self.recovery
        states = {ExecutionState.QUEUED: facts}
        if _IN_SLURM.get(self.slurm_state) == _ORDER["running"]:
            nodes = [self.machines] if self.machines else []
            states[ExecutionState.RUNNING] = {"scheduler": {"nodes": nodes}}
        now = datetime.now(UTC)
        return [
            Report(state=state, occurred_at=now, attempt=self.attempt, facts=known)
            for state, known in states.items()
        ]


def is_cancelled(connection: psycopg.Connection, submission_id: str) -> bool:
    """Whether somebody asked for the job's end; once committed, that is never taken back."""
    row = connection.execute(
        "SELECT cancel_requested_at IS NOT NULL FROM byoc.job WHERE submission_id = %s",
        (submission_id,),
    ).fetchone()
    return row is not None and bool(row[0])


def active(connection: psycopg.Connection) -> list[Standing]:
    """All jobs whose work chain was launched and whose end was not told."""
    return connection.cursor(row_factory=class_row(Standing)).execute(_STANDING).fetchall()


def of_processes(connection: psycopg.Connection, processes: Collection[int]) -> list[Standing]:
    """The jobs under way that these processes belong to."""
    cursor = connection.cursor(row_factory=class_row(Standing))
    return cursor.execute(_OF_PROCESSES, {"processes": list(processes)}).fetchall()


def locked(
    connection: psycopg.Connection, submission_id: str, *, wait: bool = True
) -> Standing | None:
    """Lock the job, then see where it stands; `None` when its end was told.

    Under the lock nobody else tells anything of it: of two processes played at once, the second sees the first.

    Raises:
        Busy: somebody has the job, and `wait` is false.
    """
    lock = _LOCK if wait else f"{_LOCK} SKIP LOCKED"
    if connection.execute(lock, (submission_id,)).fetchone() is None:
        raise Busy(submission_id)
    cursor = connection.cursor(row_factory=class_row(Standing))
    return cursor.execute(_OF_JOB, (submission_id,)).fetchone()


def go_on(connection: psycopg.Connection, submission_id: str) -> int:
    """Take a held job back, unless another of its processes holds it still; return how many events that took.

    What the job has reached meanwhile is told as well: nothing could follow `held`.
    """
    now = locked(connection, submission_id)
    if now is None or now.state != ExecutionState.HELD or now.has_ended or now.hold is not None:
        return 0
    outbox.resume(connection, submission_id, datetime.now(UTC))
    told = [outbox.append(connection, submission_id, report) for report in now.reports()]
    return 1 + sum(seq is not None for seq in told)
