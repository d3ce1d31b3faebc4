"""A compute node does not take a job, and Slurm cancels it before it began: nobody did, and the node tries again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import slurm
from lab.paths import LabPaths
from lab.process import MARK, wait_until
from lab.process import stop as stop_daemons
from tests.engine.driving import RUN_LOG, Underway, run, squeue
from tests.engine.test_arrays import array, attempts, table

FIRST, OTHER = "n1", "n2"
THEIRS = ("sbatch", "--parsable", "--job-name=theirs", "--output=/dev/null")


def standing(node: str) -> str:
    """The state of a node, and why Slurm gives it no jobs."""
    return run("sinfo", "--noheader", f"--nodes={node}", "--partition=main", "--format=%T %E")


@pytest.fixture
def let_other_in(
    cluster: slurm.Slurm, scontrol: Callable[..., str]
) -> Iterator[Callable[[], None]]:
    """Slurm starts jobs on the first node alone, until the other one is let in."""
    wait_until(lambda: not squeue("--format=%i"), 30, "an idle cluster")
    scontrol("update", f"nodename={OTHER}", "state=drain", "reason=later")
    yield lambda: scontrol("update", f"nodename={OTHER}", "state=resume") and None
    for node in (FIRST, OTHER):
        if "drain" in standing(node):
            scontrol("update", f"nodename={node}", "state=resume")
        wait_until(lambda node=node: standing(node).startswith("idle"), 60, f"{node} to be idle")


class Forgetful:
    """A controller that is killed and forgets a job, whose number it gives again while the job goes on."""

    def __init__(self, paths: LabPaths) -> None:
        self._paths = paths
        self._state, self._kept = paths.root / "slurm" / "state", paths.root / "slurm" / "before"
        self._watching: list[int] = []
        stop_daemons(paths, "slurmctld")  # which saves everything
        shutil.copytree(self._state, self._kept)
        slurm.start_controller(paths)

    def forget(self) -> str:
        """Forget somebody's job; return its number, which the next submission gets.

        What watches over that job on its node is stopped: it does not hear from the controller that it has to end.
        """
        begun = self._paths.root / "begun"
        theirs = run(*THEIRS, f"--wrap=touch {begun}; sleep 300").strip()
        wait_until(begun.exists, 60, "their job to run")
        begun.unlink()
        self._watching += self._stepds(theirs)
        for pid in self._watching:
            os.kill(pid, signal.SIGSTOP)
        stop_daemons(self._paths, "slurmctld", first=signal.SIGKILL)
        shutil.rmtree(self._state)
        self._kept.rename(self._state)
        slurm.start_controller(self._paths)
        return theirs

    def let_go(self) -> None:
        """Let that job hear what it has to."""
        while self._watching:
            os.kill(self._watching.pop(), signal.SIGCONT)

    def _stepds(self, job: str) -> list[int]:
        mark = f"{MARK}={self._paths.root}\0".encode()
        found = run("pgrep", "--full", f"^slurmstepd: .{job}.batch.", check=False).split()
        return [int(pid) for pid in found if mark in Path("/proc", pid, "environ").read_bytes()]


@pytest.fixture
def forgetful(paths: LabPaths, let_other_in: object) -> Iterator[Forgetful]:
    """Before it forgets."""
    controller = Forgetful(paths)
    yield controller
    controller.let_go()
    wait_until(lambda: not squeue("--format=%i"), 60, "an idle cluster")


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_job_whose_number_still_runs_is_submitted_again(
    node: Any,
    forgetful: Forgetful,
    let_other_in: Callable[[], None],
    scontrol: Callable[..., str],
    *,
    is_resumed: bool,
) -> None:
    """Slurm drains the node with the reason; where an administrator was there before anybody read it, as well."""
    theirs = forgetful.forget()
    job = Underway(node, node.accept("sh", "-c", RUN_LOG))
    ours = job.until(lambda: job.last.get("scheduler"), "a number")["job_id"]
    wait_until(lambda: "Duplicate jobid" in standing(FIRST), 60, "the node to refuse the job")
    if is_resumed:
        scontrol("update", f"nodename={FIRST}", "state=resume")
    let_other_in()
    forgetful.let_go()
    chain = job.finish()

    assert ours == theirs
    assert chain.is_finished_ok, chain.exit_message
    assert job.runs == 1
    assert (job.last["state"], job.last["attempt"]) == ("succeeded", 2)
    cause = job.last["recovery"]
    assert (cause["code"], cause["action"]) == ("launch_refused", "starts anew")
    assert squeue("--states=all", "--format=%T", f"--jobs={ours}") == "CANCELLED"


@pytest.fixture
def prolog(
    paths: LabPaths, cluster: slurm.Slurm, let_other_in: object
) -> Iterator[Callable[[str], None]]:
    """Have the first node run a script before each job."""
    script, before = paths.root / "slurm" / "prolog.sh", cluster.conf.read_text()

    def configure(text: str) -> None:
        cluster.conf.write_text(text)
        run("scontrol", "reconfigure")
        slurm.restart_node(paths, FIRST)

    def install(text: str) -> None:
        script.write_text(f"#!/bin/bash\n{text}\n")
        script.chmod(0o755)
        configure(f"{before}Prolog={script}\n")

    yield install
    if "drain" in standing(FIRST):
        run("scontrol", "update", f"nodename={FIRST}", "state=resume")
    configure(before)


def finish_elsewhere(job: Underway, let_other_in: Callable[[], None]) -> Any:
    """Once the first node has refused it, let the other one in; return the work chain, which has succeeded there."""
    job.until(lambda: "Prolog error" in standing(FIRST), "the prolog to fail")
    let_other_in()
    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert (job.last["state"], job.last["attempt"]) == ("succeeded", 2)
    assert job.last["recovery"]["code"] == "launch_refused"
    return chain


def test_a_job_whose_node_fails_in_its_prolog_is_submitted_again(
    node: Any, prolog: Callable[[str], None], let_other_in: Callable[[], None]
) -> None:
    prolog(f"[ $SLURMD_NODENAME != {FIRST} ]")
    job = Underway(node, node.accept("sh", "-c", RUN_LOG))
    finish_elsewhere(job, let_other_in)
    assert job.runs == 1


def test_elements_that_their_node_refuses_are_submitted_again(
    node: Any,
    prolog: Callable[[str], None],
    let_other_in: Callable[[], None],
    tmp_path: Path,
) -> None:
    """Of an array, by what the node is drained for alone; what has ended elsewhere meanwhile is not run again."""
    prolog(f"[ $SLURMD_NODENAME != {FIRST} ]")
    rows = [[str(number)] for number in range(4)]
    job = Underway(node, node.accept(**array(RUN_LOG, rows, cpu=1, pack=1)))
    chain = finish_elsewhere(job, let_other_in)

    first, second = attempts(chain)
    ended = {row["number"]: row["attempt"] for row in table(second, tmp_path)}
    assert sorted(ended) == [0, 1, 2, 3]
    before = {row["number"] for row in table(first, tmp_path) if row["state"] == "succeeded"}
    assert {number for number, attempt in ended.items() if attempt == 1} == before


def test_a_job_that_somebody_cancels_in_its_prolog_was_killed(
    node: Any, paths: LabPaths, prolog: Callable[[str], None]
) -> None:
    """Slurm says the same of it, except of its node; what somebody wants to end is not begun again."""
    go_on = paths.root / "go-on"
    prolog(f"for second in {{1..60}}; do [ ! -e {go_on} ] || exit 0; sleep 1; done")
    job = Underway(node, node.accept("sh", "-c", RUN_LOG))
    ours = job.until_state("running")["scheduler"]["job_id"]
    run("scancel", ours)
    go_on.touch()
    job.finish()

    assert (job.last["state"], job.last["attempt"]) == ("failed", 1)
    assert job.last["error"]["code"] == "killed"
    assert job.runs == 0
