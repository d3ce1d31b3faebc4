"""Driving AiiDA's event loop step by step, so that a test can act while a job is under way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiida.manage import get_manager
from aiida.orm import CalcJobNode, load_node
from plumpy import ensure_portal

from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.commands.stopping import Stopper
from lab.process import LabError, wait_until

__all__ = [
    "OUT_OF_TIME",
    "RUN_LOG",
    "SHORT",
    "Underway",
    "callbacks",
    "cluster",
    "nothing_starts",
    "run",
    "squeue",
    "until_none",
]

OUT_OF_TIME = "endtime=now+5"
"""For `scontrol update`; Slurm refuses a time that has passed when it hears of it, which `now` may have."""
RUN_LOG = "echo run >> runs"
"""Shell for a container: each run leaves a line that `Underway.runs` counts."""
SHORT = {"cpu": 1, "memory_mib": 128, "walltime_seconds": 2}
"""A shape whose walltime is over soon; Slurm itself allows it a minute."""

T = TypeVar("T")


@contextlib.contextmanager
def nothing_starts(scontrol: Callable[..., str]) -> Iterator[None]:
    """Slurm starts no more jobs meanwhile; what runs goes on."""
    scontrol("update", "partitionname=main", "state=down")
    try:
        yield
    finally:
        scontrol("update", "partitionname=main", "state=up")


class Underway:
    """A job that a worker has in hand; the worker works only while a test waits here.

    Args:
        mortal: it has a worker of its own, which may die.
    """

    def __init__(self, node: Any, submission: str, *, mortal: bool = False) -> None:
        self.node = node
        self.submission = submission
        self._runner = _new_runner() if mortal else node.runner
        self._loop = self._runner.loop
        self.process = node.load(node.launch(submission), self._runner)
        self._task = self._loop.create_task(self.process.step_until_terminated())

    def until(self, condition: Callable[[], T], what: str, seconds: float = 60) -> T:
        """Let the worker work until the condition holds; return what it gave."""

        def look() -> T:
            self._loop.run_until_complete(asyncio.sleep(0.02))
            return condition()

        return wait_until(look, seconds, what)

    def fall_asleep(self, when: Callable[[], object], what: str) -> None:
        """Let the worker work one turn of its loop at a time, and not a moment beyond the condition."""
        deadline = time.monotonic() + 60
        while not when():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self._loop.run_until_complete(asyncio.sleep(0))

    def take_over(self) -> None:
        """The worker has died: another one takes up what has not ended, from the checkpoints."""
        assert self._runner is not self.node.runner, "a mortal worker is needed"
        self._runner = _new_runner()
        self._loop = self._runner.loop
        for pid in [each.pk for each in self.process.node.called if not each.is_terminated]:
            self._loop.create_task(self.node.load(pid, self._runner).step_until_terminated())
        self.process = self.node.load(self.process.pid, self._runner)
        self._task = self._loop.create_task(self.process.step_until_terminated())

    def until_state(self, state: str, seconds: float = 60) -> dict[str, Any]:
        """Let the worker work until the job's last event tells that state; return the event."""
        return self.until(lambda: self.last["state"] == state and self.last, f"{state}", seconds)

    def finish(self, seconds: float = 60) -> Any:
        """Let the worker work until the work chain has ended; return its node."""
        self.until(self._task.done, "the work chain to end", seconds)
        return load_node(self.process.pid)

    def kill(self) -> None:
        """Kill the work chain, as a call from outside does; its attempt is another process."""
        self._kill(self.process)
        self.until(self.process.has_terminated, "the work chain to be killed")

    def kill_attempt(self) -> None:
        """Kill the newest attempt, unless it has ended."""
        if not self.attempt.is_terminated:
            process = self.attempt_process
            self._kill(process)
            self.until(process.has_terminated, "the attempt to be killed")

    def stop(self) -> None:
        """Kill the job's processes as an accepted cancel does, and let the launcher's stopper do the rest."""
        self.kill()
        self.kill_attempt()
        stopper = Stopper(get_manager().get_profile_storage())

        def ended() -> bool:
            stopper.step()
            return self.last["state"] in {"cancelled", "failed"}

        self.until(ended, "the end to be told")

    def end_unseen(self) -> None:
        """Let the job end in Slurm while the worker does not look."""
        self.until_state("running")
        wait_until(lambda: set(self.jobs.values()) == {"COMPLETED"}, 60, "the job to end by itself")

    def _kill(self, process: Any) -> None:
        async def call() -> None:
            await ensure_portal()
            process.kill("by a test")

        self._loop.run_until_complete(call())

    @property
    def last(self) -> dict[str, Any]:
        """The last event."""
        return self.node.events(self.submission)[-1]  # type: ignore[no-any-return]

    @property
    def states(self) -> list[str]:
        """The states that were told."""
        return self.node.states(self.submission)  # type: ignore[no-any-return]

    @property
    def attempt(self) -> CalcJobNode:
        """The newest attempt's node."""
        return max(self.process.node.called, key=lambda called: called.pk)

    @property
    def attempt_process(self) -> ContainerJob:
        """The newest attempt's process, as the worker has it."""
        pid = self.attempt.pk
        (found,) = [
            each for each in gc.get_objects() if isinstance(each, ContainerJob) and each.pid == pid
        ]
        return found

    @property
    def directory(self) -> Path:
        """The newest attempt's directory on the cluster."""
        return Path(self.attempt.get_remote_workdir())

    @property
    def runs(self) -> int:
        """How often the container really ran, by `RUN_LOG`."""
        log = self.directory / "work" / "runs"
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def name(self) -> str:
        """The first attempt's name in Slurm."""
        return f"byoc-{self.submission}-1"

    @property
    def jobs(self) -> dict[str, str]:
        """The jobs of that name that Slurm knows: id → state."""
        said = squeue("--states=all", "--format=%i %T", f"--name={self.name}")
        return dict(line.split() for line in said.splitlines())  # type: ignore[misc]


def _new_runner() -> Any:
    """A worker's; what is left in the loop of a dead one never runs again."""
    return get_manager().create_runner(loop=asyncio.new_event_loop())


def cluster() -> str:
    """What Slurm calls itself; its jobs' names on compute nodes begin with it."""
    return run("scontrol", "show", "config").partition("ClusterName")[2].split()[1]


def squeue(*options: str) -> str:
    """Ask Slurm's queue."""
    return run("squeue", "--noheader", *options).strip()


def run(*command: str, cwd: Path | None = None, check: bool = True) -> str:
    """Run a command; return what it says."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=check).stdout


def until_none(left: Callable[[], Sequence[str]], seconds: float = 30) -> None:
    """Wait until nothing is left; what still is then, is told."""
    with contextlib.suppress(LabError):
        wait_until(lambda: not left(), seconds, "nothing to be left")
    remains = left()
    assert not remains, f"left after {seconds:g} s: {remains}"


def callbacks(*steps: Callable[[], T]) -> list[T]:
    """Run each in a callback of its own of one event loop."""

    async def run() -> list[T]:
        found = []
        for step in steps:
            found.append(step())
            await asyncio.sleep(0)
        return found

    # Not `asyncio.run`: it leaves the thread without an event loop, and AiiDA's runner has to find its own.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()
