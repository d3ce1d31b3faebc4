"""I17: whatever `sbatch` says and whoever dies, an attempt runs once. Real Slurm; a fake only in front of `sbatch`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida.common.datastructures import CalcJobState
from aiida.engine.utils import instantiate_process

from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.workflows.attempt import attempt_inputs
from aiida_byoc.workflows.recovery import ask
from tests.engine.driving import RUN_LOG, Underway

RUN_ONCE = ("sh", "-c", f"{RUN_LOG}; sleep 1")
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture
def before_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a script before Slurm's `sbatch`; `$SBATCH` is the real one. Return the log of the calls."""

    def install(script: str) -> Path:
        log = tmp_path / "calls"
        fake = tmp_path / "bin" / "sbatch"
        fake.parent.mkdir()
        real = shutil.which("sbatch")
        fake.write_text(f"#!/bin/bash\nSBATCH={real}\necho call >> {log}\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
        return log

    return install


@pytest.fixture
def quick_retries(profile: Any) -> Any:
    """AiiDA tries a failed submission again at once."""
    from aiida.manage import get_config

    config = get_config()
    option = "transport.task_retry_initial_interval"
    config.set_option(option, 1, scope=profile.name)
    yield
    config.unset_option(option, scope=profile.name)


@pytest.mark.parametrize(
    "script",
    [
        f'"$SBATCH" "$@" > /dev/null; echo "{TIMED_OUT}" >&2; exit 1',
        '"$SBATCH" "$@" > /dev/null; kill -9 $$',
        '"$SBATCH" "$@" > /dev/null; echo "something else"',
    ],
    ids=["time-out", "killed", "no answer"],
)
@pytest.mark.usefixtures("quick_retries")
def test_i17_an_sbatch_that_lies_is_called_once(
    node: Any, before_sbatch: Callable[[str], Path], script: str
) -> None:
    """It made the job and says that it did not, every time."""
    log = before_sbatch(script)
    job = Underway(node, node.accept(*RUN_ONCE))

    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert (job.runs, len(job.jobs), len(log.read_text().split())) == (1, 1, 1)
    assert job.last["scheduler"]["job_id"] == next(iter(job.jobs))


@pytest.mark.parametrize("first", ["ours", "other"])
def test_i17_of_two_copies_one_runs(
    node: Any, before_sbatch: Callable[[str], Path], first: str
) -> None:
    """A hung controller made one job of each call; whichever runs, the other leaves, and the record counts."""
    copies = '"$SBATCH" "$@" > /dev/null; "$SBATCH" "$@"'
    if first == "ours":
        copies = 'answer=$("$SBATCH" "$@"); "$SBATCH" "$@" > /dev/null; echo "$answer"'
    before_sbatch(copies)
    job = Underway(node, node.accept(*RUN_ONCE))

    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert len(job.jobs) == 2
    assert job.runs == 1
    ran = (job.directory / "byoc_fence" / "owner").read_text().strip()
    assert job.last["scheduler"]["job_id"] == ran
    job.until(lambda: "PENDING" not in job.jobs.values(), "the other copy to leave")
    job.until(lambda: "RUNNING" not in job.jobs.values(), "the other copy to leave")
    assert job.runs == 1


@pytest.mark.usefixtures("quick_retries")
def test_i17_a_controller_that_cannot_be_asked_gets_no_job(
    node: Any, before_sbatch: Callable[[str], Path], tmp_path: Path
) -> None:
    """Not even an `sbatch` that would work: the job may be there already."""
    log = before_sbatch('"$SBATCH" "$@"')
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f"#!/bin/bash\necho asked >> {tmp_path}/asked\nexit 1\n")
    squeue.chmod(0o755)
    job = Underway(node, node.accept(*RUN_ONCE))
    job.until((tmp_path / "asked").exists, "the question")

    squeue.unlink()
    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert (job.runs, len(job.jobs), len(log.read_text().split())) == (1, 1, 1)


def test_a_pause_while_slurm_has_the_job_loses_nothing(node: Any) -> None:
    """The process stands still, the Slurm job does not; played, it goes on with the same one."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 3"))
    job.until_state("running")

    job.attempt_process.pause("by an operator")
    job.until_state("held")
    job.until(lambda: job.attempt_process.paused, "the pause")
    job.attempt_process.play()
    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert job.runs == 1
    assert job.states[-3:] == ["held", "running", "succeeded"]


def test_a_worker_that_dies_after_the_upload_loses_no_output(node: Any) -> None:
    """AiiDA has noted the upload, and held its output in memory alone; the next worker gives it again."""
    chain = node.load(node.launch(node.accept("true")))
    chain.setup()
    chain.unpack_image()
    inputs = attempt_inputs(
        chain.command,
        chain._placement(),
        ask(chain.command, chain._placement(), []),
        [],
        submission_id=chain.submission_id,
        rootfs=chain.ctx.rootfs,
        image_env=chain.ctx.image_env,
        given={},
        fetched=FetchedFiles(Path(chain.inputs["fetched"])),
        code=chain.inputs["code"],
    )
    attempt = instantiate_process(node.runner, ContainerJob, **inputs)
    node.runner.persister.save_checkpoint(attempt)
    attempt.node.set_remote_workdir("/somewhere")

    assert "remote_folder" not in node.load(attempt.pid).outputs
    attempt.node.set_state(CalcJobState.UNSTASHING)
    again = node.load(attempt.pid)
    again.update_outputs()

    assert attempt.node.outputs.remote_folder.get_remote_path() == "/somewhere"
    assert (
        node.load(attempt.pid).outputs["remote_folder"].uuid == again.outputs["remote_folder"].uuid
    )
