"""How many short tasks a second an array gets done, packed and not, against Slurm's own array of the same container.

    .venv/bin/python -m benchmarks.arrays [--tasks 100 1000] [--raw-file FILE]

In a lab of its own. Each number is that of tasks from the submission (of the command, or of `sbatch`) to the end (the
last event, or an empty queue). The container is the same: bubblewrap, the lab's image, a program that does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from aiida_byoc.runtimes.images import ImageStore
from lab import process, stack
from lab.paths import LabPaths

END_SECONDS = 900.0
PACKED, UNPACKED, RAW = KINDS = ("packed", "one task an element", "sbatch --array")
WARM = 4


def main() -> int:
    """Measure; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--raw-file", type=Path, help="for the seconds that each took, as JSON")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`: the lab ends too
    took: dict[int, dict[str, float]] = {}
    with _lab() as (paths, lab):
        _ours(lab, WARM, pack=None)
        for tasks in asked.tasks:
            took[tasks] = {
                RAW: _raw(paths, lab, tasks),
                UNPACKED: _ours(lab, tasks, pack=1),
                PACKED: _ours(lab, tasks, pack=None),
            }
            _say(f"{tasks} tasks: {took[tasks]}")
    if asked.raw_file:
        asked.raw_file.write_text(json.dumps(took, indent=2))
    print(
        f"| tasks | {' | '.join(f'{kind}, tasks/s' for kind in KINDS)} | packed/raw | unpacked/raw |"
    )
    print("|---|---|---|---|---|---|")
    for tasks, seconds in took.items():
        rates = " | ".join(f"{tasks / seconds[kind]:.1f}" for kind in KINDS)
        ratios = " | ".join(f"{seconds[RAW] / seconds[kind]:.2f}" for kind in (PACKED, UNPACKED))
        print(f"| {tasks} | {rates} | {ratios} |")
    return 0


@contextmanager
def _lab() -> Iterator[tuple[LabPaths, dict[str, Any]]]:
    with tempfile.TemporaryDirectory(prefix="byoc-bench-") as parent:
        Path(parent).chmod(0o755)
        paths = LabPaths(Path(parent) / "lab")
        try:
            lab = stack.up(paths)
            os.environ.update(lab["node"]["environment"])
            yield paths, lab
        finally:
            stack.down(paths)


def _ours(lab: Mapping[str, Any], tasks: int, *, pack: int | None) -> float:
    """Seconds from the command to the job's end."""
    tenant = lab["tenants"][0]
    workload = {
        "kind": "array",
        "image": lab["images"][0]["ref"],
        "argv": ["true"],
        "tasks": {"count": tasks},
        **({"task_seconds": 0.02} if pack is None else {"pack": pack}),
    }
    command = {
        "schema_version": "1",
        "tenant_id": tenant["tenant_id"],
        "workspace_id": tenant["workspace_id"],
        "job_id": f"array-{uuid.uuid4().hex[:12]}",
        "management_node_id": lab["node"]["node_id"],
        "execution_profile": {"queue_name": lab["queue_name"]},
        "resource_shape": {
            "cpu": 2 if pack is None else 1,
            "memory_mib": 128,
            "walltime_seconds": 3600,
        },
        "workload": workload,
        "requested_by": {"user_id": tenant["user_id"]},
    }
    began = time.monotonic()
    answer = httpx.post(
        f"{lab['adapter']['url']}/v1/nodes/{lab['node']['node_id']}/jobs",
        json=command,
        headers={
            "Authorization": f"Bearer {tenant['token']}",
            "Idempotency-Key": f'"{uuid.uuid4()}"',
        },
        timeout=60,
    )
    answer.raise_for_status()
    with psycopg.connect(lab["postgres"]["dsn"], autocommit=True) as connection:

        def state() -> str | None:
            row = connection.execute(
                "SELECT state::text FROM byoc.job WHERE submission_id = %s",
                (answer.json()["submission_id"],),
            ).fetchone()
            return row[0] if row and row[0] in {"succeeded", "failed"} else None

        ended = process.wait_until(state, END_SECONDS, f"an array of {tasks} tasks to end")
    if ended != "succeeded":
        raise process.LabError(f"an array of {tasks} tasks {ended}")
    return time.monotonic() - began


def _raw(paths: LabPaths, lab: Mapping[str, Any], tasks: int) -> float:
    """Seconds from `sbatch` to an empty queue."""
    store = ImageStore(paths.directory("store"))
    words = [
        *("bwrap", "--ro-bind", str(store.rootfs(lab["images"][0]["digest"])), "/"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-all"),  # noqa: S108
        *("--die-with-parent", "--cap-drop", "ALL", "--", "true"),
    ]
    began = time.monotonic()
    name = f"raw-{tasks}"
    with tempfile.TemporaryDirectory(dir=paths.root) as directory:
        Path(directory).chmod(0o777)
        subprocess.run(
            [
                *("sbatch", f"--array=0-{tasks - 1}", f"--job-name={name}", "--mem=128"),
                *(f"--chdir={directory}", "--output=/dev/null", f"--wrap={shlex.join(words)}"),
            ],
            check=True,
            capture_output=True,
        )
        asked = ["squeue", "--noheader", f"--name={name}", "--states=pending,running,completing"]
        process.wait_until(
            lambda: not subprocess.run(asked, check=True, capture_output=True).stdout,
            END_SECONDS,
            f"{tasks} raw tasks to end",
        )
    return time.monotonic() - began


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
