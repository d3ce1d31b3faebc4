"""From the ledger to AiiDA: one single-threaded process that launches, dispatches, stops and repairs.

AiiDA is not thread-safe (measured: 0 of 50 concurrent submits survived a thread pool), so this is the only process of
the agent that holds AiiDA's storage. Node, checkpoint, ledger and event are *one* transaction, and with the broker
`byoc.postgres` the workers' task as well (measured: AiiDA's own submit left 16 of 77 nodes orphaned under SIGKILL,
this 0 of 113); several launchers may work side by side.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy.exc
from aiida.engine.runners import Runner
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import Dict

from aiida_byoc import crashpoints
from aiida_byoc.commands.admission import SLOTS_OPTION, bounded, next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.inputs import UNAVAILABLE, earlier_jobs
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.commands.quotas import Quotas
from aiida_byoc.commands.repair import Repairer
from aiida_byoc.commands.stopping import Stopper
from aiida_byoc.commands.task_stopping import TaskStopper
from aiida_byoc.commands.undelivered import Undelivered
from aiida_byoc.contracts.failures import job_error
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import checkpoints, outbox
from aiida_byoc.events.hooks import transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.events.reconcile import Sweep
from aiida_byoc.node import NodeSettings
from aiida_byoc.workflows.approved import ApprovedWorkChain
from aiida_byoc.workflows.inputs import InputUnavailable, earlier_outputs
from aiida_byoc.workflows.job import JobWorkChain

__all__ = ["Launcher"]

_LOGGER = logging.getLogger(__name__)
_MAX_LAUNCH_FAILURES = 5
_PLAY_SECONDS = 5.0
_UNDISPATCHED_SECONDS = 5.0
_POLICY_SECONDS = 5.0

_WORK_CHAINS = {"container": JobWorkChain, "array": JobWorkChain, "workchain": ApprovedWorkChain}
"""Kind of workload → what runs it."""


class Launcher:
    """What is to be done now; each `step` does one piece of each kind of work and commits it.

    Args:
        runner: AiiDA's.
        settings: the node's.
        dispatch: hands the pk of a work chain to the workers; raises if it cannot.
        transactional: whether `dispatch` writes in AiiDA's open transaction (`byoc.postgres`); any other broker
            must see the work chain committed first.
    """

    def __init__(
        self,
        runner: Runner,
        settings: NodeSettings,
        dispatch: Callable[[int], object],
        *,
        transactional: bool = False,
    ) -> None:
        self._runner = runner
        self._storage = get_manager().get_profile_storage()
        self._settings = settings
        self._hand_over = dispatch
        self._transactional = transactional
        contained = {
            "code": settings.code,
            "image_store": str(settings.image_store),
            "fetched": str(settings.fetched_files.directory),
        }
        self._inputs: dict[str, dict[str, str]] = {
            "container": contained,
            "array": contained,
            "workchain": {},
        }
        self._slots = int(get_manager().get_option(SLOTS_OPTION))
        self._limits = bounded(Limits(), self._slots)
        self._quotas = Quotas()
        self._hopeless_first = False
        self._next_limits = 0.0
        self._next_play = 0.0
        self._next_undispatched = 0.0
        self._stopper = Stopper(self._storage)
        self._task_stopper = TaskStopper(self._storage)
        self._sweep = Sweep(self._storage)
        self._repairer = Repairer(self._storage)
        self._undelivered = Undelivered(self._storage)

    def step(self) -> bool:
        """Do what is due; return whether there was anything, so that the caller knows whether to wait."""
        dispatched = [self._dispatch(pk) for pk in self._undispatched()]
        self._read_limits()
        launched = self._launch_next()
        self._stopper.step()
        self._task_stopper.step()
        self._sweep.step()
        self._play_on()
        self._undelivered.step()
        return launched or any(dispatched)

    def _launch_next(self) -> bool:
        """Create the work chain of the accepted job whose turn it is, unless its deadline has passed."""
        self._hopeless_first = not self._hopeless_first
        now = datetime.now(UTC)
        job: Mapping[str, Any] | None = None
        try:
            with transaction(self._storage) as connection:
                job = next_job(
                    connection,
                    self._limits,
                    self._quotas,
                    hopeless_first=self._hopeless_first,
                )
                if job is None:
                    return False
                if job["deadline"] is not None and job["deadline"] <= now:
                    _fail(connection, job, "deadline_exceeded", "the deadline passed before launch")
                    return True
                try:
                    pk = self._create_work_chain(connection, job, now)
                except InputUnavailable as error:
                    _fail(connection, job, UNAVAILABLE, str(error))
                    return True
                if self._transactional:
                    self._hand_over(pk)
                    _mark_dispatched(connection, pk)
                crashpoints.reached("launch.created")
        except (psycopg.OperationalError, sqlalchemy.exc.OperationalError):
            raise  # the database is gone or cannot: crash, be restarted, start anew
        except Exception as error:
            if job is None:
                raise
            _LOGGER.exception("the job of submission %s cannot be launched", job["submission_id"])
            self._postpone(job, now, final=not isinstance(error, OSError))
            return True
        crashpoints.reached("launch.committed")
        if not self._transactional:
            self._dispatch(pk)
        return True

    def _create_work_chain(
        self, connection: psycopg.Connection, job: Mapping[str, Any], now: datetime
    ) -> int:
        submission_id = str(job["submission_id"])
        kind = job["command"]["workload"]["kind"]
        given = earlier_outputs(job["command"], earlier_jobs(connection, submission_id))
        process = instantiate_process(
            self._runner,
            _WORK_CHAINS[kind],
            command=Dict(job["command"]),
            placement=Dict(job["placement"]),
            submission_id=submission_id,
            metadata={"label": f"byoc:{submission_id}"},
            **self._inputs[kind],
            **({"given": given} if given else {}),
        )
        if process.node.checkpoint is None:  # it was saved with the state, unless that failed
            checkpoints.save(process)
        pk: int = process.pid
        connection.execute(
            "UPDATE byoc.job SET process_uuid = %s, process_pk = %s WHERE submission_id = %s",
            (process.node.uuid, pk, submission_id),
        )
        report = Report(
            state=ExecutionState.LAUNCHED,
            occurred_at=now,
            facts={"execution_id": process.node.uuid},
        )
        outbox.append(connection, submission_id, report)
        process.close()
        return pk

    def _dispatch(self, pk: int) -> bool:
        """Hand a committed work chain to the workers; whoever dies in between finds it undispatched."""
        with transaction(self._storage) if self._transactional else contextlib.nullcontext():
            self._hand_over(pk)
            crashpoints.reached("launch.dispatched")
            with transaction(self._storage) as connection:
                _mark_dispatched(connection, pk)
        return True

    def _read_limits(self) -> None:
        """An owner's change counts within seconds; what cannot be read changes nothing."""
        if time.monotonic() < self._next_limits:
            return
        self._next_limits = time.monotonic() + _POLICY_SECONDS
        try:
            policy = Policy.load(self._settings.policy_file)
            self._limits = bounded(policy.limits, self._slots)
            self._quotas = policy.quotas
            self._repairer.rules = policy.repair
        except PolicyError as error:
            _LOGGER.error("the limits stay as they were: %s", error)  # noqa: TRY400

    def _play_on(self) -> None:
        """Play on what AiiDA paused, now and then."""
        if time.monotonic() >= self._next_play:
            self._repairer.step()
            self._next_play = time.monotonic() + _PLAY_SECONDS

    def _postpone(self, job: Mapping[str, Any], now: datetime, *, final: bool) -> None:
        """Try again later; in the end give up, unless the machine is at fault (a full disk), not the job."""
        failures = job["launch_failures"] + 1
        with transaction(self._storage) as connection:
            if final and failures >= _MAX_LAUNCH_FAILURES:
                _fail(connection, job, "launch_failed", "the node could not launch the job")
                return
            connection.execute(
                "UPDATE byoc.job SET launch_failures = %s, launch_not_before = %s WHERE submission_id = %s",
                (failures, now + timedelta(seconds=2 ** min(failures, 6)), job["submission_id"]),
            )

    def _undispatched(self) -> list[int]:
        # Where work chain and task are one commit, there are some only after a change of the broker.
        if self._transactional and time.monotonic() < self._next_undispatched:
            return []
        self._next_undispatched = time.monotonic() + _UNDISPATCHED_SECONDS
        with transaction(self._storage) as connection:
            rows = connection.execute(
                "SELECT process_pk FROM byoc.job WHERE state = 'launched' AND dispatched_at IS NULL"
                " ORDER BY accepted_at LIMIT 20"
            )
            return [row[0] for row in rows]


def _mark_dispatched(connection: psycopg.Connection, pk: int) -> None:
    connection.execute("UPDATE byoc.job SET dispatched_at = now() WHERE process_pk = %s", (pk,))


def _fail(connection: psycopg.Connection, job: Mapping[str, Any], code: str, message: str) -> None:
    report = Report(
        state=ExecutionState.FAILED,
        occurred_at=datetime.now(UTC),
        facts={"error": job_error(code, message)},
    )
    outbox.append(connection, str(job["submission_id"]), report)
