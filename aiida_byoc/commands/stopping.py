"""Carrying out ends that need Slurm's word: cancels, and whatever else broke an execution off.

The intent of a cancel is in the ledger, so it is tried until the job has ended. Slurm is told first and by this process
itself: AiiDA's workers may be dead, asleep or busy, and `killed` says nothing of the Slurm job. Each attempt of a
cancelled job, and of a work chain that ended otherwise than by its own steps, is looked for in Slurm and stopped, until
the witnesses say that nothing is left of it. What an array's tasks left is kept then, and only then the job's end told.
The processes are asked to die as well; one that sleeps meanwhile finds the intent when it wakes, does nothing more and
ends as killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiida.orm import CalcJobNode, ProcessNode, load_node
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.commands.killing import Killer, ask_to_die
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox
from aiida_byoc.events.hooks import transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.events.reconcile import count_repair
from aiida_byoc.events.standing import HELD
from aiida_byoc.schedulers.elsewhere import stopped
from aiida_byoc.schedulers.options import name_in_slurm
from aiida_byoc.schedulers.slurm import scancel_command
from aiida_byoc.schedulers.verdict import Finding, Verdict, judge
from aiida_byoc.schedulers.witnesses import Evidence, close_command, evidence, look_command
from aiida_byoc.workflows import killed
from aiida_byoc.workflows.outcome import GONE, OPEN, attempts, gone, outcome

__all__ = ["Stopper"]

_LOGGER = logging.getLogger(__name__)
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
_OURS = "aiida.workflows:byoc.job"
"""Process type of a work chain whose attempts ask for the cancel before they submit anything."""
_TRIES = 3
"""Of fetching what an array left; its end is told then without."""
_STEP_SECONDS = 5.0
"""A cluster that does not answer must not keep the launcher from launching: the rest waits."""

_TO_STOP = """
SELECT job.process_pk, job.submission_id::text, job.cancel_requested_at IS NOT NULL
FROM byoc.job JOIN db_dbnode AS node ON node.id = job.process_pk
WHERE job.state IN ('launched', 'queued', 'running', 'held')
  AND (job.cancel_requested_at IS NOT NULL AND job.dispatched_at IS NOT NULL
       OR node.attributes ->> 'process_state' IN ('finished', 'excepted', 'killed'))
"""


class Stopper:
    """Ends what was cancelled or broke off, and tells of it; a failure only means that it tries again.

    Args:
        storage: AiiDA's.
        ask: asks whoever runs the process of that pk to kill it, and does not wait; raises when nobody does.
    """

    def __init__(self, storage: Any, ask: Callable[[int], object] = ask_to_die) -> None:
        self._storage = storage
        self._killer = Killer(ask)
        self._again: dict[int, tuple[float, float]] = {}
        self._next_look = 0.0
        self._unaccounted: dict[int, float] = {}
        self._unkept: dict[int, int] = {}

    def step(self) -> None:
        """Do what is due for every job that is to stop; looks for such jobs at most once a second."""
        began = time.monotonic()
        if began < self._next_look:
            return
        self._next_look = began + _FIRST_PAUSE
        with transaction(self._storage) as connection:
            to_stop = connection.execute(_TO_STOP).fetchall()
        again = {pk: self._again.get(pk, (0.0, _FIRST_PAUSE)) for pk, *_ in to_stop}
        for pk, submission_id, is_cancelled in sorted(to_stop, key=lambda row: again[row[0]]):
            due, pause = again[pk]
            if due > began or time.monotonic() - began > _STEP_SECONDS:
                break
            self._stop(
                load_node(pk), submission_id, is_cancelled, tell_doubt=pause == _LONGEST_PAUSE
            )
            again[pk] = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE)
        self._again = again

    def _stop(
        self, chain: ProcessNode, submission_id: str, is_cancelled: bool, *, tell_doubt: bool
    ) -> None:
        submits_no_more = is_cancelled and chain.process_type == _OURS
        left = [attempt for attempt in attempts(chain) if not gone(attempt)]
        verdicts = {attempt.pk: self._verdict(attempt, submits_no_more) for attempt in left}
        alive = [each for each in (chain, *chain.called_descendants) if not each.is_terminated]
        for process in alive:
            self._killer.kill(process.pk)
            if process is chain:
                break  # it has its attempts killed
        if tell_doubt:
            for attempt in left:
                self._hold(attempt, submission_id, verdicts[attempt.pk])
        gone_for_good = all(each.finding is Finding.ENDED for each in verdicts.values())
        # Where all has ended and nothing was left, the hook has told it, or the sweep will.
        is_end = gone_for_good and (submits_no_more if alive else left)
        if is_end and all(self._is_kept(attempt, is_cancelled) for attempt in left):
            self._tell(chain, left, submission_id, is_cancelled)

    def _is_kept(self, attempt: CalcJobNode, is_cancelled: bool) -> bool:
        """Have what an array's tasks left kept; whether that is done, or was tried often enough."""
        try:
            if killed.is_killed_array(attempt):
                killed.keep(attempt, stopped=is_cancelled)
        except Exception as error:  # whatever the transport raises
            tries = self._unkept[attempt.pk] = self._unkept.get(attempt.pk, 0) + 1
            _LOGGER.warning("Tasks not kept event=tasks_not_kept attempt=%s: %r", attempt.pk, error)
            if tries < _TRIES:
                return False
        self._unkept.pop(attempt.pk, None)
        return True

    def _tell(
        self, chain: ProcessNode, left: list[CalcJobNode], submission_id: str, is_cancelled: bool
    ) -> None:
        """Nothing of these attempts is in Slurm any more, nor can come there: that is the job's end."""
        crashpoints.reached("stop.confirmed")
        with transaction(self._storage) as connection:
            for attempt in left:
                if attempt.is_terminated and HELD in attempt.base.extras.all:
                    attempt.base.extras.delete(HELD)
                attempt.base.extras.set(GONE, utc_now_text(datetime.now(UTC)))
            state = ProcessState(chain.process_state.value)
            report = outcome(chain, state, is_cancelled=is_cancelled)
            told = outbox.append(connection, submission_id, report) if report else None
            if told is not None and chain.is_terminated and OPEN not in chain.base.extras.all:
                count_repair(connection, "ended")

    def _verdict(self, attempt: CalcJobNode, submits_no_more: bool) -> Verdict:
        """What Slurm has of the attempt; without a directory, nothing.

        One that asks for the cancel does so after it has made its directory, and goes no further then. Of any other
        only its own end shows that nothing comes.
        """
        if attempt.get_remote_workdir() is not None:
            return self._look(attempt)
        return Verdict(finding=Finding.ENDED if submits_no_more else Finding.WAIT)

    def _look(self, attempt: CalcJobNode) -> Verdict:
        """Ask the witnesses, and do what brings the end nearer."""
        directory = attempt.get_remote_workdir()
        name = name_in_slurm(attempt.pk, directory, attempt.get_option("custom_scheduler_commands"))
        try:
            with attempt.get_authinfo().get_transport() as transport:
                if attempt.computer.scheduler_type != "byoc.slurm":
                    return stopped(attempt, transport)
                _, output, _ = transport.exec_command_wait(look_command({name: directory}))
                seen = evidence(output)[name]
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
            seen, doubted=now - since, walltime=attempt.get_option("max_wallclock_seconds") or 0
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
