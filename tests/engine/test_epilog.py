"""The lab's Slurm runs our Epilog: it looks for what a job has left, unless the job has said that there is nothing."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from aiida_byoc.runtimes import in_job
from lab.process import wait_until
from tests.engine.driving import Underway, cluster, squeue
from tests.engine.test_resources import in_job_programs
from tests.unit.node.test_epilog import left_behind, lives

WAITS = "until test -e go; do sleep 0.05; done"


@pytest.mark.parametrize("is_killed", [False, True], ids=["ends in order", "is killed"])
def test_what_is_left_is_looked_for_if_the_job_did_not_end_in_order(
    node: Any, *, is_killed: bool
) -> None:
    job = Underway(node, node.accept("sh", "-c", WAITS))
    slurm_job = job.until_state("running")["scheduler"]["job_id"]

    with left_behind(f"{cluster()}-{slurm_job}") as left:
        if is_killed:
            (program,) = in_job_programs(slurm_job)
            os.kill(program, signal.SIGKILL)
        else:
            (job.directory / "work" / "go").touch()
        job.finish()
        wait_until(lambda: not squeue(f"--name={job.name}"), 60, "the Epilog to end")

        assert (job.directory / in_job.NONE_LEFT / slurm_job).exists() is not is_killed
        assert lives(left) is not is_killed
