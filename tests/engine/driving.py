"""Driving AiiDA's event loop step by step, so that a test can act while a job is under way."""

from __future__ import annotations

import asyncio
import gc
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aiida.orm import CalcJobNode, load_node

from aiida_byoc.calculations.container import ContainerJob
from lab.process import wait_until

__all__ = ["Underway"]

T = TypeVar("T")


class Underway:
    """A job that a worker has in hand; the worker works only while a test waits here."""

    def __init__(self, node: Any, submission: str) -> None:
        self.node = node
        self.submission = submission
        self.process = node.load(node.launch(submission))
        self._loop = node.runner.loop
        self._task = self._loop.create_task(self.process.step_until_terminated())

    def until(self, condition: Callable[[], T], what: str, seconds: float = 60) -> T:
        """Let the worker work until the condition holds; return what it gave."""

        def look() -> T:
            self._loop.run_until_complete(asyncio.sleep(0.02))
            return condition()

        return wait_until(look, seconds, what)

    def until_state(self, state: str, seconds: float = 60) -> dict[str, Any]:
        """Let the worker work until the job's last event tells that state; return the event."""
        return self.until(lambda: self.last["state"] == state and self.last, f"{state}", seconds)

    def finish(self, seconds: float = 60) -> Any:
        """Let the worker work until the work chain has ended; return its node."""
        self.until(self._task.done, "the work chain to end", seconds)
        return load_node(self.process.pid)

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
        """How often the container of `RUN_LOG` really ran."""
        log = self.directory / "work" / "runs"
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def name(self) -> str:
        """The first attempt's name in Slurm."""
        return f"byoc-{self.submission}-1"

    @property
    def jobs(self) -> dict[str, str]:
        """The jobs of that name that Slurm knows: id → state."""
        said = subprocess.run(
            ["squeue", "-h", "--states=all", "--format=%i %T", f"--name={self.name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return dict(line.split() for line in said.splitlines())  # type: ignore[misc]
