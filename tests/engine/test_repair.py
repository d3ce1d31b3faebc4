"""What AiiDA paused because the cluster failed it goes on by itself; what a person paused does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.manage import get_config, get_manager

from aiida_byoc.commands.housekeeping import Repair
from aiida_byoc.commands.repair import Repairer
from tests.engine.driving import Underway
from tests.eventually import eventually

BROKEN = "#!/bin/sh\necho 'sbatch: error: Unable to contact slurm controller' >&2\nexit 1\n"
AT_ONCE = Repair(max_plays=3, first_seconds=0.001, most_seconds=0.001)


@pytest.fixture
def impatient(profile: Any) -> Iterator[None]:
    """AiiDA tries twice, and pauses then."""
    options = {"transport.task_retry_initial_interval": 1, "transport.task_maximum_attempts": 2}
    for name, value in options.items():
        get_config().set_option(name, value, scope=profile.name)
    yield
    for name in options:
        get_config().unset_option(name, scope=profile.name)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a command that fails before the real one on the PATH; take it away to mend the cluster."""

    def put(name: str) -> Path:
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(BROKEN)
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
        return command

    return put


def until_paused(job: Underway) -> None:
    job.until(lambda: bool(job.process.node.called) and job.attempt_process.paused, "a pause")


def repairer(job: Underway) -> Repairer:
    """As the launcher's process has it; the worker is this one."""

    def play(pk: int) -> None:
        assert pk == job.attempt.pk
        assert job.attempt_process.play()

    made = Repairer(get_manager().get_profile_storage(), play)
    made.rules = AT_ONCE
    return made


def play_when_due(made: Repairer) -> None:
    eventually(made.step, "a process to be played")


def plays_nothing(made: Repairer) -> bool:
    return not any(made.step() for _ in range(5))


@pytest.mark.usefixtures("impatient")
def test_i3_what_the_cluster_failed_goes_on_once_it_answers(
    node: Any, broken: Callable[[str], Path]
) -> None:
    """`sbatch` fails until AiiDA pauses, the controller is away, then both work: one Slurm job, and its success."""
    sbatch, ping = broken("sbatch"), broken("scontrol")
    job = Underway(node, node.accept())
    until_paused(job)
    made = repairer(job)

    assert job.states[-1] == "held"
    assert plays_nothing(made)
    assert job.attempt_process.paused
    sbatch.unlink()
    ping.unlink()
    play_when_due(made)

    assert job.finish().is_finished_ok
    assert len(job.jobs) == 1
    assert job.states[:4] == ["accepted", "launched", "held", "launched"]


@pytest.mark.usefixtures("impatient")
def test_i3_it_is_played_so_often_and_then_waits_for_a_person(
    node: Any, broken: Callable[[str], Path]
) -> None:
    """Counted in the database: whoever restarts the launcher grants no further plays."""
    sbatch = broken("sbatch")
    job = Underway(node, node.accept())
    for _ in range(AT_ONCE.max_plays):
        until_paused(job)
        play_when_due(repairer(job))
    until_paused(job)

    assert plays_nothing(repairer(job))

    assert job.attempt_process.paused
    told = node.events(job.submission)
    assert [event["state"] for event in told[-3:]] == ["held", "launched", "held"]
    assert "played 3 times and now waits for an operator" in told[-1]["reason"]
    sbatch.unlink()
    job.attempt_process.play()
    assert job.finish().is_finished_ok


def test_what_an_operator_paused_is_left_alone(node: Any) -> None:
    job = Underway(node, node.accept("sleep", "5"))
    job.until(lambda: job.last["state"] in {"queued", "running"}, "the job to be in Slurm")
    job.attempt_process.pause("Paused through `verdi process pause`")
    until_paused(job)

    assert plays_nothing(repairer(job))

    assert job.attempt_process.paused
    job.kill_attempt()


@pytest.mark.usefixtures("impatient")
def test_what_is_cancelled_is_not_played(node: Any, broken: Callable[[str], Path]) -> None:
    broken("sbatch")
    job = Underway(node, node.accept())
    until_paused(job)
    node.connection.execute(
        "UPDATE byoc.job SET cancel_requested_at = now() WHERE submission_id = %s",
        (job.submission,),
    )

    assert plays_nothing(repairer(job))

    assert job.attempt_process.paused
    job.kill_attempt()


@pytest.mark.usefixtures("impatient")
def test_a_play_that_reached_nobody_does_not_count(
    node: Any, broken: Callable[[str], Path]
) -> None:
    """No worker runs: the bound is for the cluster's failures."""
    broken("sbatch")
    job = Underway(node, node.accept())
    until_paused(job)

    def nobody(_: int) -> None:
        raise TimeoutError

    made = Repairer(get_manager().get_profile_storage(), nobody)
    made.rules = AT_ONCE
    assert plays_nothing(made)

    plays = "SELECT plays, given_up FROM byoc.play WHERE process_pk = %s"
    assert node.connection.execute(plays, (job.attempt.pk,)).fetchall() == [(0, False)]
    job.kill_attempt()


@pytest.mark.usefixtures("impatient")
def test_a_played_process_is_not_paused_again_by_a_crash(
    node: Any, broken: Callable[[str], Path]
) -> None:
    """The worker dies while the task is tried again: the checkpoint says that the process goes on."""
    sbatch = broken("sbatch")
    job = Underway(node, node.accept())
    until_paused(job)
    job.attempt_process.play()

    again = node.load(job.attempt.pk)

    assert not again.paused
    sbatch.unlink()
    assert job.finish().is_finished_ok
