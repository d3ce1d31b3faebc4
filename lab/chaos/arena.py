"""A lab in which everything may go wrong: proxies on its wires, armed crash points, an `sbatch` that lies."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from lab import stack
from lab.chaos import sbatch
from lab.chaos.evidence import gather, progress, quiet
from lab.chaos.load import Job, Load
from lab.chaos.parts import Parts
from lab.chaos.proxy import FaultProxy
from lab.chaos.truths import Truths, compare
from lab.paths import LabPaths

__all__ = ["Arena", "arena"]

KEEP_SECONDS = 0.5
ADMINISTER_SECONDS = 5.0
IMPATIENT = {"transport.task_retry_initial_interval": 1, "transport.task_maximum_attempts": 3}
"""AiiDA's patience with a failing transport or scheduler, for a lab in which they fail all the time."""
POLICY = """
[repair]
first_seconds = 1
most_seconds = 5

[retention]
days = 1

[limits]
active_jobs = 40
"""
POLL_SECONDS = 0.5


@dataclass(kw_only=True)
class Arena:
    """A running lab and what can be done to it.

    Attributes:
        proxies: `adapter` (whoever calls it, agent and clients), `convex` (the adapter calls it).
        slurm_forgot: see `compare`; set by whoever kills the controller.
        product_forgot: likewise, by whoever kills the product.
        keep: leave the lab up, to look into it.
    """

    paths: LabPaths
    lab: dict[str, Any]
    parts: Parts
    proxies: dict[str, FaultProxy]
    slurm_forgot: bool = False
    product_forgot: bool = False
    keep: bool = False

    def load(self) -> Load:
        """A product's backend that knows no job yet."""
        return Load(self.lab)

    def arm(self, point: str) -> None:
        """Let the next process that passes this crash point die there."""
        self._crash(f"{point}.hit").unlink(missing_ok=True)
        self._crash(point).touch()

    def hit(self, point: str) -> bool:
        """Whether a process died at the point since it was armed."""
        return self._crash(f"{point}.hit").exists()

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        for name in ("crash", "faults"):
            for armed in self.paths.directory(name).iterdir():
                armed.unlink(missing_ok=True)
        for proxy in self.proxies.values():
            proxy.clear()

    def lie(self, how: str, times: int = 1) -> None:
        """Let the next calls of `sbatch` suffer a fault of `lab.chaos.sbatch`."""
        for _ in range(times):
            (self.paths.directory("faults") / f"{how}-{uuid4().hex}").touch()

    def settle(self, load: Load, seconds: float) -> Truths:
        """Wait until every job has ended and the product knows, or nothing happens any more; then compare the truths.

        Args:
            seconds: for so long no event and no delivery: what has not ended by then is stuck.
        """
        deadline, seen = time.monotonic() + seconds, None
        while time.monotonic() < deadline and not self._quiet(load):
            with contextlib.suppress(psycopg.OperationalError):
                if seen != (seen := progress(self.lab)):
                    deadline = time.monotonic() + seconds
            time.sleep(POLL_SECONDS)
        load.stop()
        return self.judge(load.jobs)

    def judge(self, jobs: Collection[Job]) -> Truths:
        """Compare the four truths about some jobs."""
        return compare(
            jobs,
            gather(self.paths, self.lab, jobs),
            slurm_forgot=self.slurm_forgot,
            product_forgot=self.product_forgot,
        )

    def _quiet(self, load: Load) -> bool:
        try:
            return load.idle() and quiet(self.lab, load.jobs)
        except (psycopg.OperationalError, subprocess.CalledProcessError):
            return False

    def _crash(self, name: str) -> Path:
        return self.paths.directory("crash") / name


@contextmanager
def arena(paths: LabPaths, seed: int = 0) -> Iterator[Arena]:
    """Start a lab with everything in place, and who keeps agent and Slurm going; stop it at the end.

    Args:
        seed: of every random choice.
    """
    proxies: dict[str, FaultProxy] = {}

    def via(name: str, url: str) -> str:
        proxies[name] = FaultProxy(url, paths.ports(f"{name}-proxy")[0], seed)
        return proxies[name].url

    if stack.is_up(paths):
        stack.down(paths)
    lab = stack.up(paths, via)
    program = paths.directory("bin") / "sbatch"
    shutil.copyfile(sbatch.__file__, program)
    program.chmod(0o700)
    paths.directory("faults")
    with (paths.root / "policy.toml").open("a") as policy:
        policy.write(POLICY)
    parts = Parts(paths, lab, random.Random(seed))  # noqa: S311  (reproducible, not secret)
    for option, value in IMPATIENT.items():
        parts.verdi("config", "set", option, str(value))
    parts.kill_daemon()
    parts.start_daemon()
    ending = threading.Event()

    def repeat(seconds: float, what: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not ending.wait(seconds):
                what()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    caretakers = [
        repeat(KEEP_SECONDS, parts.keep),
        repeat(ADMINISTER_SECONDS, parts.resume_nodes),
    ]
    built = Arena(paths=paths, lab=lab, parts=parts, proxies=proxies)
    try:
        yield built
    finally:
        ending.set()
        for caretaker in caretakers:
            caretaker.join()
        if not built.keep:
            stack.down(paths)
        for proxy in proxies.values():
            proxy.close()
