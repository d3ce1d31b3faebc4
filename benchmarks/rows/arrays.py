"""Arrays: short tasks a second, packed and one an element, against Slurm alone with the same container, and aiida-core.

Each number is that of tasks from the submission (of the command, or of `sbatch`) to the end (the product knows it, or
the queue is empty). The container is the same: bubblewrap with the same words, the lab's image, a program that does
nothing; what it prints goes to a file of the task's own.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import uuid
from abc import ABC, abstractmethod
from statistics import fmean
from typing import Any

from aiida_byoc.runtimes.bubblewrap import launch
from aiida_byoc.runtimes.container import Container
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import GID, HOST, UID
from benchmarks import jobs, rounds
from benchmarks.figures import Measure, Target, at_least, per_second
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain, image
from benchmarks.rounds import Round
from lab import node, process
from lab.proctable import POLL_SECONDS

__all__ = ["measure"]

END_SECONDS = 900.0
TURN_SECONDS = 60.0
"""Of either side, one task an element: of a machine whose speed changes by half within minutes, both see the same. Each
turn but the first begins with up to a second in which Slurm looks for what was released, more for ours: 1,000 tasks
are to fit into one."""
PAIRS = 3
"""Of up to 1,000 tasks. Of four pairs of 1,000, one after the other, the ratios were 0.76, 0.84, 0.86, 0.87."""
MOST_BETWEEN_SECONDS = 0.5
"""Between two looks for the end, of ours and of raw tasks: each takes CPU that the elements wait for."""
LOOK_SECONDS = 0.05
"""Between two looks at the database for the end of packed tasks, which may all take a second."""
TASK_SECONDS = 0.02
"""What the command says of a task where it is to be packed."""
CPUS = 4
"""Of a node of the lab: packed tasks have one whole, `sbatch --array` and one task an element have both."""
MEMORY_MIB = 128
AIIDAS_SECONDS = 10.0
"""Between two questions to Slurm, where nobody says otherwise."""
LARGE = 1000
"""From so many tasks on the targets of packing are promised; the fixed cost of one job is in each number."""


def measure(bench: Bench) -> list[Measure]:
    """Tasks per second by number of tasks; `sbatch --array` and one task an element in turns."""
    sizes = [100, 500] if bench.quick else [1, 100, LARGE, 10 * LARGE]
    bench.lab.up()
    _allow_large(bench)
    in_turns = min(LARGE, sizes[-1])
    alone, packed = _against_plain(bench, in_turns)
    took: dict[int, dict[str, float]] = {}
    for tasks in sizes:
        took[tasks] = {"packed": packed if tasks == in_turns else _packed(bench, tasks)}
        took[tasks].update(_unpacked_against_raw(bench, tasks))
        bench.keep.raw("arrays", "seconds", took)
    return [each for tasks, seconds in took.items() for each in _measures(tasks, seconds, alone)]


def _measures(tasks: int, seconds: dict[str, float], alone: float) -> list[Measure]:
    rates = {name: per_second(tasks, each) for name, each in seconds.items()}
    is_large = tasks >= LARGE

    def one(kind: str, baseline: float, against: str, target: Target | None) -> Measure:
        return Measure(
            what=f"{kind}, {tasks:,} tasks",
            value=rates[kind],
            unit="/s",
            baseline=baseline,
            against=against,
            target=target,
        )

    return [
        one("packed", rates["raw"], "sbatch --array", at_least(3) if is_large else None),
        one("packed", alone, "aiida-core alone", at_least(100) if is_large else None),
        one("unpacked", rates["raw"], "sbatch --array", at_least(0.8)),
    ]


def _allow_large(bench: Bench) -> None:
    """Have the node take arrays of so many elements, and ask Slurm as often as AiiDA does, not as often as the lab."""
    with (bench.lab.paths.root / "policy.toml").open("a") as policy:
        policy.write(f"[arrays]\nelements = {10 * LARGE}\n")
    ask = f"load_computer({node.COMPUTER!r}).set_minimum_job_poll_interval({AIIDAS_SECONDS})"
    done = f"import aiida; aiida.load_profile({node.PROFILE!r}); from aiida.orm import load_computer; {ask}"
    bench.lab.run(sys.executable, "-c", done)


def _against_plain(bench: Bench, tasks: int) -> tuple[float, float]:
    """In turns, both warm: jobs a second of aiida-core alone, which has no arrays; seconds of so many packed tasks."""
    plain = Plain(bench.lab)
    alone: list[Round] = []
    packed: list[float] = []
    for _ in range(bench.scale(3, 1)):
        alone.append(rounds.alone(bench, plain, bench.scale(32, 4)))
        _packed(bench, CPUS, jobs_at_once=rounds.WARM)
        packed += [_packed(bench, tasks) for _ in range(3)]
    bench.keep.raw("arrays", "in turns", {"plain": [*map(vars, alone)], "packed, s": packed})
    return sum(each.count for each in alone) / sum(each.seconds for each in alone), fmean(packed)


def _unpacked_against_raw(bench: Bench, tasks: int) -> dict[str, float]:
    """Seconds of `sbatch --array` and of one task an element; who is first in one pair is second in the next."""
    pairs: list[list[_Array]] = []
    for number in range(1 if tasks > LARGE else PAIRS):
        pairs.append([_Raw(bench, tasks, number), _Unpacked(bench, tasks)])
        first, second = pairs[-1] if number % 2 == 0 else reversed(pairs[-1])
        while not (first.is_over and second.is_over):
            first.work(TURN_SECONDS)
            second.work(TURN_SECONDS)
    took = {
        "raw": [raw.seconds for raw, _ in pairs],
        "unpacked": [ours.seconds for _, ours in pairs],
    }
    bench.keep.raw("arrays", f"pairs of {tasks}", took)
    return {name: fmean(seconds) for name, seconds in took.items()}


def _packed(bench: Bench, tasks: int, jobs_at_once: int = 1) -> float:
    """Seconds from the first command until the product knows the last job's end."""
    commands = [
        _command(bench, tasks, cpu=CPUS, task_seconds=TASK_SECONDS) for _ in range(jobs_at_once)
    ]
    with bench.lab.database() as connection:
        began = time.monotonic()
        names = jobs.send(bench.lab.up(), commands)
        jobs.wait_until_told(connection, names, END_SECONDS, every=LOOK_SECONDS)
        return time.monotonic() - began


def _command(bench: Bench, tasks: int, cpu: int, **dealt: object) -> dict[str, Any]:
    command = jobs.command(bench.lab.up(), f"array-{uuid.uuid4().hex[:12]}")
    command["resource_shape"] = {
        "cpu": cpu,
        "memory_mib": MEMORY_MIB,
        "walltime_seconds": 3600,
    }
    command["workload"] = {
        "kind": "array",
        "image": command["workload"]["image"],
        "argv": ["true"],
        "tasks": {"count": tasks},
        **dealt,
    }
    return command


def _between(tasks: int) -> float:
    """Seconds between two looks for the end of so many tasks: a hundredth or so of what they take."""
    return max(POLL_SECONDS, min(MOST_BETWEEN_SECONDS, tasks / 1000))


class _Array(ABC):
    """A Slurm array with an element for each task, which works in turns with another.

    Attributes:
        seconds: of its turns, from the submission on.
        is_over: whether it has ended.
    """

    def __init__(self, bench: Bench, tasks: int) -> None:
        self._lab, self._tasks = bench.lab, tasks
        self._every = _between(tasks)
        self._id = ""
        self.seconds, self.is_over = 0.0, False

    def work(self, seconds: float) -> None:
        """Go on for so long, and until the elements that run by then have ended; those that wait are held then."""
        if self.is_over:
            return
        began = time.monotonic()
        if not self._id:
            self._id = self._begin()
        else:
            self._control("release")
        process.wait_until(
            lambda: self._has_ended() or time.monotonic() - began > seconds,
            END_SECONDS,
            f"{self._tasks} tasks to end, or their turn",
            every=self._every,
        )
        self.is_over = self._has_ended()
        if not self.is_over:
            self._control("hold")
            process.wait_until(
                lambda: not self._queue("--states=running,completing"),
                END_SECONDS,
                "the elements that run to end",
            )
        self.seconds += time.monotonic() - began

    @abstractmethod
    def _begin(self) -> str:
        """Submit it; return Slurm's id."""

    @abstractmethod
    def _has_ended(self) -> bool: ...

    def _control(self, word: str) -> None:
        with contextlib.suppress(process.LabError):  # nothing of it waits any more
            self._lab.run("scontrol", word, self._id)

    def _queue(self, *asked: str) -> set[str]:
        """Ids of arrays in Slurm's queue."""
        asked = ("--noheader", "--format=%F", *(["--jobs=" + self._id] if self._id else []), *asked)
        return set(self._lab.run("squeue", *asked).split())


class _Raw(_Array):
    """`sbatch --array`; it has ended when the queue is empty."""

    def __init__(self, bench: Bench, tasks: int, number: int) -> None:
        super().__init__(bench, tasks)
        self._directory = bench.lab.paths.directory(f"raw-{tasks}-{number}")
        self._command = f"exec {_container(bench)} true"

    def _begin(self) -> str:
        (self._directory / WORK).mkdir()
        return self._lab.run(
            *("sbatch", "--parsable", f"--array=0-{self._tasks - 1}", f"--mem={MEMORY_MIB}"),
            *(f"--chdir={self._directory}", "--output=%a.out", f"--wrap={self._command}"),
        ).strip()

    def _has_ended(self) -> bool:
        return not self._queue("--states=pending,running,completing")


class _Unpacked(_Array):
    """A command of ours; it has ended when the product knows."""

    def __init__(self, bench: Bench, tasks: int) -> None:
        super().__init__(bench, tasks)
        self._command = _command(bench, tasks, cpu=1, pack=1)
        self._names: list[str] = []

    def _begin(self) -> str:
        self._names = jobs.send(self._lab.up(), [self._command])
        with self._lab.database() as connection:
            return process.wait_until(
                lambda: jobs.slurm_id(connection, self._names[0]),
                END_SECONDS,
                "Slurm to have the array",
                every=self._every,
            )

    def _has_ended(self) -> bool:
        with self._lab.database() as connection:
            return jobs.are_told(connection, self._names)


def _container(bench: Bench) -> str:
    """The words of the container that a task of ours has, without the descriptors that tell us of it."""
    rootfs = str(image(bench.lab.up()))
    words = launch(Container(rootfs=rootfs, memory_mib=MEMORY_MIB)).command
    ours = {UID: "1000", GID: "1000", HOST: "raw"}
    command = [*words[: words.index("--json-status-fd")], "--"]
    return shlex.join(ours.get(str(word), str(word)) for word in command)
