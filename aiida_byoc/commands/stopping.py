"""Carrying out ends that need Slurm's word: cancels, and whatever else broke an execution off.

The intent of a cancel is in the ledger, so it is tried until the job has ended. AiiDA says `killed` before anything is
known of the Slurm job, and a process that excepts leaves its job behind: so each attempt of a work chain that ended
otherwise than by its own steps is looked for in Slurm and stopped, until the witnesses say that nothing is left of it.
Only then the job's end is told.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from aiida.engine.processes.control import kill_processes
from aiida.orm import CalcJobNode, ProcessNode, load_node
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox
from aiida_byoc.events.hooks import transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.events.reconcile import count_repair
from aiida_byoc.events.standing import HELD
from aiida_byoc.schedulers.options import job_name
from aiida_byoc.schedulers.slurm import scancel_command
from aiida_byoc.schedulers.verdict import Finding, Verdict, judge
from aiida_byoc.schedulers.witnesses import Evidence, close_command, evidence, look_command
from aiida_byoc.workflows.outcome import GONE, OPEN, attempts, gone, outcome

__all__ = ["Stopper"]

_LOGGER = logging.getLogger(__name__)
_KILL_SECONDS = 5.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
_STEP_SECONDS = 5.0
"""A cluster or a process that does not answer must not keep the launcher from launching: the rest waits."""

_TO_STOP = """
SELECT job.process_pk, job.submission_id::text
FROM byoc.job JOIN db_dbnode AS node ON node.id = job.process_pk
WHERE job.state IN ('launched', 'queued', 'running', 'held')
  AND (job.cancel_requested_at IS NOT NULL AND job.dispatched_at IS NOT NULL
       OR node.attributes ->> 'process_state' IN ('finished', 'excepted', 'killed'))
"""


class Stopper:
    """Ends what was cancelled or broke off, and tells of it; a failure only means that it tries again."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._again: dict[int, tuple[float, float]] = {}
        self._next_look = 0.0
        self._unaccounted: dict[int, float] = {}

    def step(self) -> None:
        """Do what is due for every job that is to stop; looks for such jobs at most once a second."""
        began = time.monotonic()
        if began < self._next_look:
            return
        self._next_look = began + _FIRST_PAUSE
        with transaction(self._storage) as connection:
            to_stop = connection.execute(_TO_STOP).fetchall()
        again = {pk: self._again.get(pk, (0.0, _FIRST_PAUSE)) for pk, _ in to_stop}
        for pk, submission_id in sorted(to_stop, key=lambda row: again[row[0]]):
            due, pause = again[pk]
            if due > began or time.monotonic() - began > _STEP_SECONDS:
                break
            self._stop(load_node(pk), submission_id, tell_doubt=pause == _LONGEST_PAUSE)
            again[pk] = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE)
        self._again = again

    def _stop(self, chain: ProcessNode, submission_id: str, *, tell_doubt: bool) -> None:
        if not chain.is_terminated:
            kill_processes([chain], timeout=_KILL_SECONDS)
            return
        left = [attempt for attempt in attempts(chain) if not gone(attempt)]
        alive = [attempt for attempt in left if not attempt.is_terminated]
        if alive:
            kill_processes(alive, timeout=_KILL_SECONDS)
            return
        verdicts = {attempt.pk: self._look(attempt) for attempt in left}
        if tell_doubt:
            for attempt in left:
                self._hold(attempt, submission_id, verdicts[attempt.pk])
        if not left or any(each.finding is not Finding.ENDED for each in verdicts.values()):
            return
        crashpoints.reached("stop.confirmed")
        with transaction(self._storage) as connection:
            for attempt in left:
                if HELD in attempt.base.extras.all:
                    attempt.base.extras.delete(HELD)
                attempt.base.extras.set(GONE, utc_now_text(datetime.now(UTC)))
            report = outcome(chain, ProcessState(chain.process_state.value))
            told = outbox.append(connection, submission_id, report) if report else None
            if told is not None and OPEN not in chain.base.extras.all:
                count_repair(connection, "ended")

    def _look(self, attempt: CalcJobNode) -> Verdict:
        """Ask the witnesses, and do what brings the end nearer."""
        name = job_name(attempt.get_option("custom_scheduler_commands"))
        directory = attempt.get_remote_workdir()
        try:
            with attempt.get_authinfo().get_transport() as transport:
                _, output, _ = transport.exec_command_wait(look_command(name, directory))
                seen = evidence(output)
                verdict = self._judge(attempt, seen)
                if verdict.finding is Finding.WAIT:
                    for job in seen.jobs:
                        transport.exec_command_wait(scancel_command(job, name))
                elif verdict.finding is Finding.CLOSE:
                    transport.exec_command_wait(close_command(directory))
        except Exception as error:  # whatever the transport raises
            reason = f"the cluster cannot be asked about the job: {error or type(error).__name__}"
            verdict = Verdict(finding=Finding.DOUBT, reason=reason)
        return verdict

    def _judge(self, attempt: CalcJobNode, seen: Evidence) -> Verdict:
        now = time.monotonic()
        since = self._unaccounted.setdefault(attempt.pk, now)
        verdict = judge(
            seen, doubted=now - since, walltime=attempt.get_option("max_wallclock_seconds")
        )
        if verdict.finding is not Finding.DOUBT or not seen.controller:
            del self._unaccounted[attempt.pk]
        return verdict

    def _hold(self, attempt: CalcJobNode, submission_id: str, verdict: Verdict) -> None:
        if verdict.finding is not Finding.DOUBT:
            return
        reason = f"stopped, but perhaps not over: {verdict.reason}"
        report = Report(state=ExecutionState.HELD, occurred_at=datetime.now(UTC), reason=reason)
        with transaction(self._storage) as connection:
            if outbox.append(connection, submission_id, report) is not None:
                _LOGGER.warning("submission %s is held: %s", submission_id, reason)
                attempt.base.extras.set(HELD, reason)
