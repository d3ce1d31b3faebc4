"""The job script that AiiDA and `byoc.slurm` write, as Slurm runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.driving import Underway


def test_the_batch_script_becomes_the_program(node: Any) -> None:
    """What Slurm signals when it signals the batch shell is the program of the job."""
    job = Underway(node, node.accept("sleep", "60"))
    slurm_job = job.until_state("running")["scheduler"]["job_id"]

    batch = job.until(lambda: programs_below("slurmstepd", slurm_job), "the job to start")
    job.stop()

    assert batch == [["/usr/bin/python3", "-m", "byoc_in_job"]]


def programs_below(parent: str, slurm_job: str) -> list[list[str]]:
    """The command lines of the job's processes whose parent is that program, once none of them is a shell."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_JOB_ID={slurm_job}\0" not in (process / "environ").read_text():
                continue
            above = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if (process.parent / above / "comm").read_text().strip() == parent:
                found.append((process / "cmdline").read_text().split("\0")[:-1])
        except OSError:
            continue
    return [] if any("bash" in command[0] for command in found) else found
