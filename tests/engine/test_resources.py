"""What a job asked for beside processors and memory: GPUs, scratch space. Real Slurm, containers, on made-up GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.paths import LabPaths
from lab.process import wait_until
from tests.engine.driving import Underway, cluster

SHAPE = {"cpu": 1, "memory_mib": 128, "walltime_seconds": 120}
TELL = "import json, os; json.dump(dict(os.environ), open('environment.json', 'w'))"
TOLD = {"outputs": [{"name": "environment.json"}]}


def waiting(program: str) -> dict[str, Any]:
    """A workload that runs the program, and waits for a file `go` then."""
    text = f"{program}\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    return {**TOLD, "inputs": [{"name": "program", "text": text}]}


def environment(chain: Any) -> dict[str, str]:
    """What the container of a job saw."""
    assert chain.is_finished_ok, chain.exit_message
    content = chain.outputs.outputs.base.repository.get_object_content("environment.json")
    return json.loads(content)  # type: ignore[no-any-return]


@pytest.mark.parametrize("gres", ["gpu", "gpu:a100"])
def test_a_job_gets_the_gpus_that_it_asked_for(
    node: Any, scontrol: Callable[..., str], gres: str
) -> None:
    """By the name that its queue has for them; which they are, Slurm says, and no image or client."""
    submission = node.accept(
        *("python3", "-c", TELL),
        workload={**TOLD, "env": {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SEEN": "1"}},
        resource_shape={**SHAPE, "gpus": 1},
        placed={"gres": gres},
    )

    seen = environment(node.run(submission))

    assert seen["CUDA_VISIBLE_DEVICES"] in {"0", "1"}
    assert seen["SLURM_JOB_GPUS"] == seen["CUDA_VISIBLE_DEVICES"]
    assert seen["SEEN"] == "1"
    job = node.events(submission)[-1]["scheduler"]["job_id"]
    assert f"TresPerNode=gres:{gres}:1\n" in scontrol("show", "job", job)


def test_two_jobs_do_not_share_a_gpu(node: Any) -> None:
    asked = {"workload": waiting(TELL), "resource_shape": {**SHAPE, "gpus": 1}}
    jobs = [Underway(node, node.accept("python3", "program", **asked)) for _ in range(2)]
    for job in jobs:
        job.until(lambda job=job: told_by(job).exists(), "both to run")  # type: ignore[misc]
    for job in jobs:
        (job.directory / "work" / "go").touch()

    seen = [environment(job.finish()) for job in jobs]

    nodes = [job.last["scheduler"]["nodes"] for job in jobs]
    cards = [(*where, each["SLURM_JOB_GPUS"]) for where, each in zip(nodes, seen, strict=True)]
    assert len(set(cards)) == 2


def told_by(job: Underway) -> Path:
    try:
        return job.directory / "work" / "environment.json"
    except (ValueError, TypeError):  # not that far yet
        return Path("/nonexistent")


def test_a_job_without_gpus_sees_none(node: Any) -> None:
    seen = environment(node.run(node.accept("python3", "-c", TELL, workload=TOLD)))

    assert not [name for name in seen if "GPU" in name or "CUDA" in name]
    assert not [name for name in seen if name.startswith("BYOC_SCRATCH")]


def test_what_slurm_does_not_have_is_refused(node: Any) -> None:
    """The policy's owner promised more than Slurm has: the job fails at once, and says whose word it was."""
    submission = node.accept("true", resource_shape={**SHAPE, "gpus": 3})

    node.run(submission)

    error = node.events(submission)[-1]["error"]
    assert (error["code"], error["retryable"]) == ("scheduler_refused", False)
    assert "Requested node configuration is not available" in error["message"]


SCRATCH = {**SHAPE, "scratch_mib": 512}
USE = (
    "import json, os, shutil, time; place = os.environ['BYOC_SCRATCH'];"
    "assert os.listdir(place) == [];"
    "open(place + '/big', 'w').write('x' * 1000000); os.mkdir(place + '/shut', 0);" + TELL
)


def scratch_of(place: str | Path, job: Underway) -> Path:
    return Path(place) / f"byoc-{cluster()}-{job.last['scheduler']['job_id']}"


def test_scratch_space_is_the_jobs_own_and_gone_afterwards(
    node: Any, paths: LabPaths, scontrol: Callable[..., str]
) -> None:
    """Where the queue has it, empty, on another disk than `/work`; closed to others; never kept."""
    place = paths.directory("local")
    submission = node.accept(
        *("python3", "program"),
        workload=waiting(USE),
        resource_shape=SCRATCH,
        placed={"scratch": str(place)},
    )
    job = Underway(node, submission)
    slurm_job = job.until_state("running")["scheduler"]["job_id"]
    job.until(lambda: told_by(job).exists(), "the program to have written")

    own = scratch_of(place, job)
    assert own.stat().st_mode & 0o077 == 0
    assert (own / "scratch" / "big").stat().st_size == 1_000_000
    assert "MinTmpDiskNode=512M" in scontrol("show", "job", slurm_job)
    (job.directory / "work" / "go").touch()
    seen = environment(job.finish())

    assert seen["BYOC_SCRATCH"] == "/scratch"
    assert seen["BYOC_SCRATCH_MIB"] == "512"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("how", ["scancel", "SIGKILL"])
def test_scratch_space_is_gone_however_the_job_ends(node: Any, how: str) -> None:
    """Told by SIGTERM the program of the job removes it; killed it cannot, and the Epilog does."""
    job = Underway(
        node, node.accept("python3", "-c", f"{USE}; time.sleep(60)", resource_shape=SCRATCH)
    )
    slurm_job = job.until_state("running")["scheduler"]["job_id"]
    job.until(lambda: told_by(job).exists(), "the program to have written")
    own = scratch_of("/tmp", job)
    assert (own / "scratch" / "big").exists()

    if how == "scancel":
        subprocess.run(["scancel", slurm_job], check=True)
    else:
        (program,) = in_job_programs(slurm_job)
        os.kill(program, signal.SIGKILL)
    job.finish()

    wait_until(lambda: not own.exists(), 30, "the scratch space to be removed")


def in_job_programs(slurm_job: str) -> list[int]:
    """The job's own program, outside of the container."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"SLURM_JOB_ID={slurm_job}\0" in (process / "environ").read_text()
            if ours and "byoc_in_job" in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_more_scratch_space_than_there_is_is_refused(node: Any) -> None:
    submission = node.accept("true", resource_shape={**SHAPE, "scratch_mib": 2**30})

    node.run(submission)

    error = node.events(submission)[-1]["error"]
    assert (error["code"], error["retryable"]) == ("scheduler_refused", False)
