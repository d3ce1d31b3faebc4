"""The waiting state of a `ContainerJob`: writes only when Slurm's state changes, and ends only on evidence.

AiiDA's own rewrites the scheduler's answer into the node at every poll (measured: 25 ms CPU and 3.4 commits for each
waiting job and poll; this one 1.8 ms and none). And it takes a job that is not in the queue for done, and pauses the
process when Slurm could not be asked five times; this one asks the witnesses, tells `held` while they leave doubt, and
keeps looking.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import plumpy
from aiida.common.datastructures import CalcJobState
from aiida.engine.processes.calcjobs import tasks
from aiida.engine.utils import InterruptableFuture
from aiida.schedulers.datastructures import JobInfo, JobState

from aiida_byoc import crashpoints
from aiida_byoc.arrays.gathering import gather_command
from aiida_byoc.calculations.listening import Post, Sight
from aiida_byoc.calculations.lookout import Lookout, lookout
from aiida_byoc.calculations.submitting import submit
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.progress import Progress
from aiida_byoc.events.hooks import EmitsExecutionEvents, transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.events.standing import HELD, go_on
from aiida_byoc.schedulers.slurm import identity, slurm_id
from aiida_byoc.schedulers.verdict import Finding, Verdict, judge
from aiida_byoc.schedulers.witnesses import Evidence, close_command

__all__ = ["PROGRESS_SECONDS", "ChangeOnlyWaiting"]

_TELL_DOUBT_SECONDS = 15.0
"""A doubt that lasts shorter is not worth anybody's attention."""
_MOST_SECONDS_BETWEEN_LOOKS = 60.0
_WAIT_REASON_SECONDS = 30.0
"""At least that long between two changes of the wait reason that are told."""
_KILL_AGAIN_SECONDS = 60.0
PROGRESS_SECONDS = 10.0
"""Between two events of progress, for attempts that an older version made."""
_INTERRUPTS = (plumpy.futures.CancelledError, plumpy.process_states.Interruption)


@plumpy.persistence.auto_persist("msg", "data", "_command", "_monitor_result")
class ChangeOnlyWaiting(tasks.Waiting):
    """Waiting for Slurm, one write per change."""

    async def _launch_task(self, coro: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.process.is_cancelled():
            # Asked last before `sbatch`: the stopper tells the end of a job by this, though its processes sleep.
            return await super()._launch_task(self._until_killed)
        if coro is tasks.task_submit_job:
            waits = functools.partial(
                submit, self.process, args[1], until_killed=self._until_killed
            )
            return await super()._launch_task(waits)
        if coro is tasks.task_update_job:
            watch = _Watch(self.process, args[1])
            return await super()._launch_task(watch.until_ended)
        return await super()._launch_task(coro, *args, **kwargs)

    async def _until_killed(self, cancellable: InterruptableFuture) -> None:
        """Do nothing more for a cancelled job; a kill fails as long as Slurm cannot be asked."""
        while not cancellable.done():
            self.process.kill_soon()
            await asyncio.wait([cancellable], timeout=_KILL_AGAIN_SECONDS)


class _Watch:
    """One worker's watch over one attempt in Slurm."""

    def __init__(self, process: EmitsExecutionEvents, job_manager: Any) -> None:
        self._process = process
        self._node: Any = process.node
        self._job_manager = job_manager
        self._progress_told: tuple[float, Progress | None] = (0.0, None)
        self._reason_told: tuple[float, str | None] = (0.0, None)
        self._doubt: tuple[float, int] | None = None
        self._unaccounted: float | None = None
        self._held = HELD in self._node.base.extras.all

    async def until_ended(self, cancellable: InterruptableFuture) -> bool:
        """Return once the attempt has ended; the answer is always true, as AiiDA's loop wants it."""
        if self._node.get_state() in {CalcJobState.RETRIEVING, CalcJobState.STASHING}:
            return True
        transports = self._process.runner.transport
        cluster = lookout(self._job_manager, transports, self._node.get_authinfo())
        name, directory = self._process.inputs["job_name"], self._node.get_remote_workdir()
        with cluster.post(name, directory) as post:
            await self._watch(cluster, post, cancellable)
            post.is_over = True
        crashpoints.reached("slurm.ended")
        with transaction(self._node.backend):
            self._resume()
            self._tell_queued(None)
            self._node.set_scheduler_state(JobState.DONE)
            self._node.set_state(CalcJobState.STASHING)
        return True

    async def _watch(self, cluster: Lookout, post: Post, cancellable: InterruptableFuture) -> None:
        """Return once the attempt has ended."""
        while True:
            try:
                verdict = await self._look(cluster, post, cancellable)
                if verdict is not None and verdict.finding is Finding.ENDED:
                    await self._gather(post.directory, cancellable)
            except _INTERRUPTS:
                raise
            except Exception as error:
                if cancellable.done():
                    # Of an answer that comes in the same turn of the event loop AiiDA makes an error.
                    raise cancellable.exception() or error from None
                reason = (
                    f"the cluster cannot be asked about the job: {error or type(error).__name__}"
                )
                verdict = Verdict(finding=Finding.DOUBT, reason=reason)
            if verdict is None:
                continue
            if verdict.job is not None:
                self._take_up(verdict.job)
            if verdict.finding is Finding.ENDED:
                return
            if verdict.finding is Finding.DOUBT:
                await self._doubts(verdict.reason, cancellable)
            else:
                self._resume()

    async def _look(
        self, cluster: Lookout, post: Post, cancellable: InterruptableFuture
    ) -> Verdict | None:
        """Wait for what is seen next; `None`: Slurm was not asked.

        Once its queue says that the job has ended, or knows none, all witnesses are asked.
        """
        sight: Sight = await cancellable.with_interrupt(
            cluster.sight(post, self._node.get_job_id())
        )
        if not sight.asked:
            self._tell_progress(post.progress)
            return None
        info = sight.info
        if info is not None and info.job_state is not JobState.DONE:
            self._unaccounted = None
            self._resume()
            self._record(info)
            self._tell_progress(post.progress)
            return Verdict(finding=Finding.WAIT)
        seen: Evidence = await cancellable.with_interrupt(cluster.evidence(post))
        now = time.monotonic()
        verdict = judge(
            seen,
            doubted=now - (self._unaccounted or now),
            walltime=self._node.get_option("max_wallclock_seconds"),
        )
        if verdict.finding is Finding.CLOSE:
            # Whoever takes it: the next look sees whose it is.
            await self._execute(close_command(post.directory), cancellable)
            post.changed = now
        in_doubt = verdict.finding is Finding.DOUBT and seen.controller
        self._unaccounted = (self._unaccounted or now) if in_doubt else None
        return verdict

    async def _gather(self, directory: str, cancellable: InterruptableFuture) -> None:
        """Have what an array's elements left brought together, to be fetched."""
        array = self._process.inputs["container"].get("array")
        if array is not None:
            command = gather_command(directory, array["pack"])
            failed, _, said = await self._execute(command, cancellable)
            if failed:
                raise OSError(f"what the array left cannot be brought together: {said.strip()}")

    async def _execute(
        self, command: str, cancellable: InterruptableFuture
    ) -> tuple[int, str, str]:
        queue = self._process.runner.transport
        async with queue.request_transport(self._node.get_authinfo()) as request:
            transport = await cancellable.with_interrupt(request)
            status, output, said = await transport.exec_command_wait_async(command)
        return status, str(output), str(said)

    async def _doubts(self, reason: str, cancellable: InterruptableFuture) -> None:
        """Tell of a doubt that lasts, and wait before the next look.

        The pauses have no jitter on purpose: jobs that lost the same Slurm look together, with one `squeue`.
        """
        since, looks = self._doubt or (time.monotonic(), 0)
        self._doubt = since, looks + 1
        if time.monotonic() - since >= _TELL_DOUBT_SECONDS:
            self._hold(reason)
        pause = min(2.0**looks, _MOST_SECONDS_BETWEEN_LOOKS)
        await cancellable.with_interrupt(asyncio.sleep(pause))

    def _hold(self, reason: str) -> None:
        # Told at every look: an operator who plays the process meanwhile makes the job go on. What is held already
        # the outbox drops.
        if not self._held:
            self._node.logger.warning(
                f"attempt {self._process.inputs['attempt']} is held: {reason}"
            )
        with transaction(self._node.backend):
            self._tell(ExecutionState.HELD, reason=reason)
            if not self._held:
                self._node.base.extras.set(HELD, reason)
        self._held = True

    def _resume(self) -> None:
        self._doubt = None
        if not self._held:
            return
        with transaction(self._node.backend) as connection:
            self._node.base.extras.delete(HELD)
            go_on(connection, self._process.submission_id)
        self._held = False
        self._progress_told = (0.0, None)  # what was reported meanwhile was not told

    def _take_up(self, job: str) -> None:
        """Go by another copy's id: `sbatch` reported failure once, and was carried out."""
        taken = identity(job, self._process.inputs["job_name"])
        if taken != self._node.get_job_id():
            self._node.set_job_id(taken)

    def _record(self, info: JobInfo) -> None:
        """Write what changed in Slurm's view to the node and tell of it, in one transaction."""
        waits = info.job_state in {JobState.QUEUED, JobState.QUEUED_HELD}
        reason = info.annotation if waits and info.annotation not in {None, "", "None"} else None
        told_at, told = self._reason_told
        news = reason not in {None, told} and (
            told is None or time.monotonic() - told_at >= _WAIT_REASON_SECONDS
        )
        if info.job_state is self._node.get_scheduler_state() and not news:
            return
        if news:
            self._reason_told = time.monotonic(), reason
        with transaction(self._node.backend):
            self._tell_queued(reason)
            self._node.set_last_job_info(info)
            self._node.set_scheduler_state(info.job_state)
            if info.job_state in {JobState.RUNNING, JobState.SUSPENDED}:
                nodes = [info.allocated_machines_raw] if info.allocated_machines_raw else []
                self._tell(ExecutionState.RUNNING, {"scheduler": {"nodes": nodes}})

    def _tell_progress(self, progress: Progress | None) -> None:
        """Tell what the program reports, if it is new, due, and Slurm says that the job runs."""
        told_at, told = self._progress_told
        runs = self._node.get_scheduler_state() in {JobState.RUNNING, JobState.SUSPENDED}
        pause = self._process.inputs["container"].get("progress_seconds", PROGRESS_SECONDS)
        is_due = told is None or time.monotonic() - told_at >= pause
        if progress is None or progress == told or not runs or not is_due:
            return
        self._progress_told = time.monotonic(), progress
        facts = {"progress": progress.model_dump(mode="json", exclude_none=True)}
        self._tell(ExecutionState.RUNNING, facts)

    def _tell_queued(self, wait_reason: str | None) -> None:
        """`queued` is told first, whatever was seen: a short job may have ended before the first poll.

        The outbox drops what it already has.
        """
        facts: dict[str, Any] = {
            "scheduler": {
                "job_id": slurm_id(self._node.get_job_id()),
                "name": self._process.inputs["job_name"],
                "queue": self._node.get_option("queue_name"),
            }
        }
        if wait_reason is not None:
            facts["scheduler"]["wait_reason"] = wait_reason
        if self._node.get_scheduler_state() is None:
            facts["timings"] = {"queued": utc_now_text(datetime.now(UTC))}
        if recovery := self._node.get_option("recovery"):
            facts["recovery"] = recovery
        self._tell(ExecutionState.QUEUED, facts)

    def _tell(
        self,
        state: ExecutionState,
        facts: dict[str, Any] | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        self._process.emit(
            Report(
                state=state,
                occurred_at=datetime.now(UTC),
                attempt=self._process.inputs["attempt"],
                reason=reason,
                facts=facts or {},
            )
        )
