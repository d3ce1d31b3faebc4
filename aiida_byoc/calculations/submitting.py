"""Submitting to a Slurm that takes no more jobs for now: the attempt waits, says why, and is tried again.

That uses up no attempt and pauses no process. Of the jobs of a worker that meet the same limit only the first in line
asks Slurm, with growing pauses; the others follow in order, so that a limit costs one `sbatch` now and then, however
many wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import plumpy
from aiida.common.datastructures import CalcJobState
from aiida.common.exceptions import TransportTaskException
from aiida.engine import ExitCode
from aiida.engine.daemon import execmanager
from aiida.engine.processes.calcjobs import tasks
from aiida.engine.utils import InterruptableFuture, exponential_backoff_retry
from aiida.manage.configuration import get_config_option

from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events.hooks import EmitsExecutionEvents
from aiida_byoc.events.outbox import Report
from aiida_byoc.schedulers.slurm import LimitReached

__all__ = ["Line", "line_of", "submit"]

_FIRST_SECONDS = 5.0
_MOST_SECONDS = 60.0
_LOOK_SECONDS = 1.0
"""How often those in line look whether it is their turn."""
_NOT_TO_BE_TRIED = (
    plumpy.futures.CancelledError,
    plumpy.process_states.Interruption,
    LimitReached,
)


class Line:
    """Jobs of one worker that wait for the same limit.

    Attributes:
        limit: what Slurm called it last.
    """

    def __init__(self) -> None:
        self.limit: LimitReached | None = None
        self._waiting: deque[object] = deque()
        self._not_before = 0.0
        self._pause = _FIRST_SECONDS

    def may_ask(self, job: object) -> bool:
        """Whether it is the job's turn; it stands in line from now on if others do."""
        if not self._waiting:
            return True
        if job not in self._waiting:
            self._waiting.append(job)
        return self._waiting[0] is job and time.monotonic() >= self._not_before

    def refused(self, job: object, limit: LimitReached) -> None:
        """Slurm named a limit: the next try is later."""
        if job not in self._waiting:  # it asked before anybody knew
            self._waiting.append(job)
        self.limit = limit
        if self._waiting[0] is job:
            self._not_before = time.monotonic() + random.uniform(0.8, 1.2) * self._pause  # noqa: S311
            self._pause = min(2 * self._pause, _MOST_SECONDS)

    def taken(self) -> None:
        """Slurm took a job: the next may ask at once."""
        self._not_before, self._pause = 0.0, _FIRST_SECONDS

    def leave(self, job: object) -> None:
        """The job waits no more."""
        if job in self._waiting:
            self._waiting.remove(job)


_LINES: WeakKeyDictionary[Any, dict[Hashable, Line]] = WeakKeyDictionary()


def line_of(node: Any, transport_queue: Any) -> Line:
    """The line of a worker, which has one transport queue, for what Slurm counts together."""
    counted = (
        node.get_authinfo().pk,
        *(node.get_option(name) for name in ("queue_name", "account", "qos")),
    )
    return _LINES.setdefault(transport_queue, {}).setdefault(counted, Line())


async def submit(
    process: EmitsExecutionEvents,
    transport_queue: Any,
    cancellable: InterruptableFuture,
    *,
    until_killed: Callable[[InterruptableFuture], Awaitable[None]],
) -> Any:
    """As AiiDA's `task_submit_job`, but wait where a limit is reached.

    Args:
        until_killed: what is done instead once the job is cancelled: `sbatch` must not follow.
    """
    node: Any = process.node
    line = line_of(node, transport_queue)
    if node.get_state() is CalcJobState.WITHSCHEDULER:
        return await tasks.task_submit_job(node, transport_queue, cancellable)
    job = object()
    told = waited = False
    try:
        while True:
            if not line.may_ask(job):
                if line.limit is not None and not told:
                    _tell(process, line.limit)
                    told = True
                waited = True
                await cancellable.with_interrupt(asyncio.sleep(_LOOK_SECONDS))
                continue
            if waited and process.is_cancelled():
                return await until_killed(cancellable)
            try:
                result = await _submit_once(node, transport_queue, cancellable)
            except LimitReached as limit:
                line.refused(job, limit)
                continue
            line.taken()
            node.set_state(CalcJobState.WITHSCHEDULER)
            return result
    finally:
        line.leave(job)


def _tell(process: EmitsExecutionEvents, limit: LimitReached) -> None:
    """`queued`, though not in Slurm's queue yet: nothing but the cluster has to move."""
    recovery = process.node.get_option("recovery")
    process.emit(
        Report(
            state=ExecutionState.QUEUED,
            occurred_at=datetime.now(UTC),
            attempt=process.inputs["attempt"],
            reason=f"Slurm takes no more jobs of this node now ({limit.name}); the node tries again",
            facts={"recovery": recovery} if recovery else {},
        )
    )


async def _submit_once(
    node: Any, transport_queue: Any, cancellable: InterruptableFuture
) -> str | ExitCode:
    """What AiiDA's task does, with its tries of whatever fails but a limit."""
    attempts = get_config_option(tasks.MAX_ATTEMPTS_OPTION)

    async def do_submit() -> Any:
        async with transport_queue.request_transport(node.get_authinfo()) as request:
            transport = await cancellable.with_interrupt(request)
            return execmanager.submit_calculation(node, transport)

    try:
        result: str | ExitCode = await exponential_backoff_retry(
            do_submit,
            get_config_option(tasks.RETRY_INTERVAL_OPTION),
            attempts,
            logger=node.logger,
            ignore_exceptions=_NOT_TO_BE_TRIED,
        )
    except _NOT_TO_BE_TRIED:
        raise
    except Exception as error:
        raise TransportTaskException(
            f"submit_calculation failed {attempts} times consecutively"
        ) from error
    return result
