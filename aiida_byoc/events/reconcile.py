"""The sweep: tells what no hook could (a checkpoint that cannot be loaded, an operator's edit), and counts it.

The witness's marks say where to look; a full pass now and then covers what was not marked. In undisturbed operation
nothing is found.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy.exc
from aiida.orm import load_node
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox, standing, witness
from aiida_byoc.events.hooks import transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.events.standing import Busy, Standing
from aiida_byoc.workflows.outcome import OPEN, outcome

__all__ = ["Sweep", "count_repair"]

_LOGGER = logging.getLogger(__name__)
_MARKS_SECONDS = 1.0
_FULL_SECONDS = 60.0

_COUNT = """
INSERT INTO byoc.repair (kind, count) VALUES (%s, 1)
ON CONFLICT (kind) DO UPDATE SET count = repair.count + 1, last_at = now()
"""


def count_repair(connection: psycopg.Connection, kind: str) -> None:
    """Count an event that a hook should have told: `ended`, `held`, `resumed`, `queued` or `running`."""
    connection.execute(_COUNT, (kind,))


class Sweep:
    """Compares AiiDA's nodes with the ledger; any number of them may work side by side.

    Args:
        storage: AiiDA's.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._next_marks = 0.0
        self._next_full = 0.0

    def step(self) -> int:
        """Look where it is due; return how many events were told."""
        now = time.monotonic()
        if now >= self._next_full:
            self._next_full = now + _FULL_SECONDS
            return self.full()
        if now >= self._next_marks:
            self._next_marks = now + _MARKS_SECONDS
            return self.marked()
        return 0

    def full(self) -> int:
        """Look at every job under way, and at the witness itself."""
        with transaction(self._storage) as connection:
            if witness.install(connection):
                _LOGGER.warning("Witness installed event=witness_installed")
            jobs = standing.active(connection)
        return sum(self._told(job) or 0 for job in jobs)

    def marked(self) -> int:
        """Look at the jobs of marked processes."""
        with transaction(self._storage) as connection:
            marks = witness.marks(connection)
            jobs = standing.of_processes(
                connection, marks
            )  # read later, so it holds what was marked
        told = [self._told(job) for job in jobs]
        if None not in told:
            with transaction(self._storage) as connection:
                witness.forget(connection, [mark for each in marks.values() for mark in each])
        return sum(events or 0 for events in told)

    def _told(self, job: Standing) -> int | None:
        """Tell what is untold of the job; `None` while somebody else has it."""
        try:
            return self._tell(job.submission_id) if job.untold else 0
        except Busy:
            return None
        except (psycopg.OperationalError, sqlalchemy.exc.OperationalError):
            raise  # the database is gone or cannot
        except Exception:  # one job that cannot be told of keeps nobody from the others
            _LOGGER.exception("Sweep failed event=sweep_failed submission=%s", job.submission_id)
            return 0

    def _tell(self, submission_id: str) -> int:
        with transaction(self._storage) as connection:
            job = standing.locked(connection, submission_id, wait=False)
            kind = job.untold if job is not None else None
            if job is None or kind is None:
                return 0  # a hook was faster
            crashpoints.reached("sweep.found")
            told, is_repair = self._tell_kind(connection, job, kind)
            if told and is_repair:
                count_repair(connection, kind)
                _LOGGER.warning(
                    "Repaired event=repaired submission=%s kind=%s", submission_id, kind
                )
        return told

    def _tell_kind(
        self, connection: psycopg.Connection, job: Standing, kind: str
    ) -> tuple[int, bool]:
        """Return how many events were told, and whether a hook should have done that."""
        # Of an approved work chain's processes, which are other plugins', this is the only source.
        is_repair = not job.is_foreign
        if kind == "resumed":
            return standing.go_on(connection, job.submission_id), is_repair
        reports: list[Report] = []
        if kind == "ended":
            self._storage.get_session().expire_all()  # what it read before the lock
            node: Any = load_node(job.process_pk)
            report = outcome(node, ProcessState(job.chain_state), is_cancelled=job.is_cancelled)
            is_repair = OPEN not in node.base.extras.all
            reports = [report] if report else []  # `None`: the stopper asks Slurm, and tells
        elif kind == "held":
            now = datetime.now(UTC)
            reports = [Report(state=ExecutionState.HELD, occurred_at=now, reason=job.hold)]
        else:
            reports = job.reports()
        told = [outbox.append(connection, job.submission_id, report) for report in reports]
        return sum(seq is not None for seq in told), is_repair
