"""Arrays: short tasks a second, packed and one an element, against Slurm alone with the same container, and aiida-core.

Each number is that of tasks from the submission (of the command, or of `sbatch`) to the end (the product knows it, or
the queue is empty). The container is the same: bubblewrap, the lab's image, a program that does nothing.
"""

from __future__ import annotations

import shlex
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.figures import Measure, Target, at_least, per_second
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain, image
from lab import process
from lab.proctable import POLL_SECONDS

__all__ = ["measure"]

END_SECONDS = 900.0
MOST_BETWEEN_SECONDS = 0.5
"""Between two looks for the end, of ours and of raw tasks: each takes CPU that the elements wait for."""
WARM = 4
TASK_SECONDS = 0.02
"""What the command says of a task where it is to be packed."""
LARGE = 1000
"""From so many tasks on the targets of packing are promised; the fixed cost of one job is in each number."""


def measure(bench: Bench) -> list[Measure]:
    """Tasks per second by number of tasks, in turns: `sbatch --array`, one task an element, packed."""
    alone = _plain(bench, bench.scale(16, 4))
    bench.lab.up()
    _ours(bench, WARM, pack=None)
    took: dict[int, dict[str, float]] = {}
    sizes = [100, 500] if bench.quick else [1, 100, LARGE, 10 * LARGE]
    for tasks in sizes:
        took[tasks] = {"raw": _raw(bench, tasks), "packed": _ours(bench, tasks, pack=None)}
        if tasks <= LARGE:
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


def _ours(bench: Bench, tasks: int, *, pack: int | None) -> float:
    """Seconds from the command until the product knows the job's end."""
    command = jobs.command(bench.lab.up(), f"array-{uuid.uuid4().hex[:12]}")
    command["resource_shape"] = {
        "cpu": 1 if pack else 2,
        "memory_mib": 128,
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


def _raw(bench: Bench, tasks: int) -> float:
    """Seconds from `sbatch` to an empty queue."""
    words = [
        *("bwrap", "--ro-bind", str(image(bench.lab.up())), "/"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-all"),  # noqa: S108
        *("--die-with-parent", "--cap-drop", "ALL", "--", "true"),
    ]
    name = f"raw-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(dir=bench.lab.paths.root) as directory:
        Path(directory).chmod(0o777)
        began = time.monotonic()
        for first in range(0, tasks, LARGE):  # Slurm takes no larger array by default
            last = min(LARGE, tasks - first) - 1
            bench.lab.run(
                *("sbatch", f"--array=0-{last}", f"--job-name={name}", "--mem=128"),
                *(f"--chdir={directory}", "--output=/dev/null", f"--wrap={shlex.join(words)}"),
            )
        asked = ["squeue", "--noheader", f"--name={name}", "--states=pending,running,completing"]
        process.wait_until(
            lambda: not bench.lab.run(*asked),
            END_SECONDS,
            f"{tasks} raw tasks to end",
            every=_between(tasks),
        )
        return time.monotonic() - began


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
