"""Arrays: short tasks a second, packed and one an element, against Slurm alone with the same container, and aiida-core.

Each number is that of tasks from the submission (of the command, or of `sbatch`) to the end (the product knows it, or
the queue is empty). The container is the same: bubblewrap with the same words, the lab's
image, a program that does nothing; what it prints goes to a file of the task's own.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from typing import Any

from aiida_byoc.runtimes.bubblewrap import launch
from aiida_byoc.runtimes.container import Container
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import GID, HOST, UID
from benchmarks import jobs
from benchmarks.figures import Measure, Target, at_least, per_second
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain, image
from lab import node, process
from lab.proctable import POLL_SECONDS

__all__ = ["measure"]

END_SECONDS = 900.0
MOST_REMEMBERED = 1500
FORGOTTEN_SECONDS = 500.0
"""More than `MinJobAge`, and the minute that Slurm takes for it."""
MOST_BETWEEN_SECONDS = 0.5
"""Between two looks for the end, of ours and of raw tasks: each takes CPU that the elements wait for."""
WARM = 4
TASK_SECONDS = 0.02
"""What the command says of a task where it is to be packed."""
MEMORY_MIB = 128
AIIDAS_SECONDS = 10.0
"""Between two questions to Slurm, where nobody says otherwise."""
LARGE = 1000
"""From so many tasks on the targets of packing are promised; the fixed cost of one job is in each number."""


def measure(bench: Bench) -> list[Measure]:
    """Tasks per second by number of tasks, in turns: `sbatch --array`, one task an element, packed."""
    alone = _plain(bench, bench.scale(16, 4))
    bench.lab.up()
    _allow_large(bench)
    _ours(bench, WARM, pack=None)
    took: dict[int, dict[str, float]] = {}
    sizes = [100, 500] if bench.quick else [1, 100, LARGE, 10 * LARGE]
    for tasks in sizes:
        took[tasks] = {"packed": _ours(bench, tasks, pack=None)}
        _wait_until_forgotten(bench)
        took[tasks]["raw"] = _raw(bench, tasks)
        _wait_until_forgotten(bench)
        took[tasks]["unpacked"] = _ours(bench, tasks, pack=1)
        bench.keep.raw("arrays", "seconds", {"plain AiiDA, tasks/s": alone, **took})
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

    found = [
        one("packed", rates["raw"], "sbatch --array", at_least(3) if is_large else None),
        one("packed", alone, "aiida-core alone", at_least(100) if is_large else None),
    ]
    if "unpacked" in rates:
        found.append(one("unpacked", rates["raw"], "sbatch --array", at_least(0.8)))
    return found


def _allow_large(bench: Bench) -> None:
    """Have the node take arrays of so many elements, and ask Slurm as often as AiiDA does, not as often as the lab."""
    with (bench.lab.paths.root / "policy.toml").open("a") as policy:
        policy.write(f"[arrays]\nelements = {10 * LARGE}\n")
    ask = f"load_computer({node.COMPUTER!r}).set_minimum_job_poll_interval({AIIDAS_SECONDS})"
    done = f"import aiida; aiida.load_profile({node.PROFILE!r}); from aiida.orm import load_computer; {ask}"
    bench.lab.run(sys.executable, "-c", done)


def _ours(bench: Bench, tasks: int, *, pack: int | None) -> float:
    """Seconds from the command until the product knows the job's end."""
    command = jobs.command(bench.lab.up(), f"array-{uuid.uuid4().hex[:12]}")
    command["resource_shape"] = {
        "cpu": 1 if pack else 2,
        "memory_mib": MEMORY_MIB,
        "walltime_seconds": 3600,
    }
    dealt: dict[str, Any] = {"pack": pack} if pack else {"task_seconds": TASK_SECONDS}
    command["workload"] = {
        "kind": "array",
        "image": command["workload"]["image"],
        "argv": ["true"],
        "tasks": {"count": tasks},
        **dealt,
    }
    with bench.lab.database() as connection:
        began = time.monotonic()
        names = jobs.send(bench.lab.up(), [command])
        jobs.wait_until_told(connection, names, END_SECONDS, every=_between(tasks))
        return time.monotonic() - began


def _between(tasks: int) -> float:
    """Seconds between two looks for the end of so many tasks: a hundredth or so of what they take."""
    return max(POLL_SECONDS, min(MOST_BETWEEN_SECONDS, tasks / 1000))


def _wait_until_forgotten(bench: Bench) -> None:
    """Wait until Slurm remembers few ended jobs: it looks through all for each that it starts."""
    asked = ["squeue", "--noheader", "--states=all"]
    process.wait_until(
        lambda: len(bench.lab.run(*asked).splitlines()) < MOST_REMEMBERED,
        FORGOTTEN_SECONDS,
        "Slurm to forget ended jobs",
        every=FORGOTTEN_SECONDS / 100,
    )


def _raw(bench: Bench, tasks: int) -> float:
    """Seconds from `sbatch` to an empty queue."""
    name = f"raw-{uuid.uuid4().hex[:12]}"
    # It stays: where many files were just deleted, ext4 takes twice as long to make one.
    directory = bench.lab.paths.directory(name)
    (directory / WORK).mkdir()
    began = time.monotonic()
    bench.lab.run(
        *("sbatch", f"--array=0-{tasks - 1}", f"--job-name={name}", f"--mem={MEMORY_MIB}"),
        *(f"--chdir={directory}", "--output=%a.out"),
        f"--wrap=exec {_container(bench)} true",
    )
    asked = ["squeue", "--noheader", f"--name={name}", "--states=pending,running,completing"]
    process.wait_until(
        lambda: not bench.lab.run(*asked),
        END_SECONDS,
        f"{tasks} raw tasks to end",
        every=_between(tasks),
    )
    return time.monotonic() - began


def _container(bench: Bench) -> str:
    """The words of the container that a task of ours has, without the descriptors that tell us of it."""
    rootfs = str(image(bench.lab.up()))
    words = launch(Container(rootfs=rootfs, memory_mib=MEMORY_MIB)).command
    ours = {UID: "1000", GID: "1000", HOST: "raw"}
    command = [*words[: words.index("--json-status-fd")], "--"]
    return shlex.join(ours.get(str(word), str(word)) for word in command)


def _plain(bench: Bench, count: int) -> float:
    """Single jobs per second of plain AiiDA, which has no arrays."""
    plain = Plain(bench.lab)
    bench.lab.without_work()
    with plain.at_work(0.5), plain.database() as connection:
        began = time.monotonic()
        pks = plain.submit(count, jobs.SCRIPT)
        process.wait_until(
            lambda: len(plain.ended(connection, pks)) == count,
            END_SECONDS,
            f"{count} work chains of the baseline to end",
        )
        return per_second(count, time.monotonic() - began)
