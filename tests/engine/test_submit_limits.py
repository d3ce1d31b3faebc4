"""A site that takes no more jobs for now: the job waits and says so, and no attempt is used up."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.calculations.submitting import Line
from aiida_byoc.commands import ledger
from aiida_byoc.schedulers.slurm import LimitReached
from lab import slurm
from lab.process import wait_until
from tests.builders import NOW, cancel
from tests.engine.driving import Underway
from tests.labs import scratch_lab

ACCOUNTING = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    " (job submit limit, user's size and/or time limits)"
)
REFUSALS = {
    "AssocMaxSubmitJobLimit": f"sbatch: error: AssocMaxSubmitJobLimit\n{ACCOUNTING}",
    "QOSMaxSubmitJobPerUserLimit": f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{ACCOUNTING}",
    "AssocGrpSubmitJobsLimit": f"sbatch: error: AssocGrpSubmitJobsLimit\n{ACCOUNTING}",
    "MaxJobCount": "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
}


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_FIRST_SECONDS", 0.5), ("_MOST_SECONDS", 1.0), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(f"aiida_byoc.calculations.submitting.{name}", seconds)


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Let `sbatch` say that so many times before it is the real one; return the log of its calls."""

    def install(said: str, times: int) -> Path:
        log, message = tmp_path / "calls", tmp_path / "message"
        message.write_text(f"{said}\n")
        fake = tmp_path / "bin" / "sbatch"
        fake.parent.mkdir()
        waits = "exec sleep 60" if "sleeping" in said else "exit 1"
        fake.write_text(
            f"#!/bin/bash\necho call >> {log}\n"
            f"[ $(wc -l < {log}) -gt {times} ] || {{ cat {message} >&2; {waits}; }}\n"
            f'exec {shutil.which("sbatch")} "$@"\n'
        )
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
        return log

    return install


@pytest.mark.parametrize("limit", REFUSALS)
@pytest.mark.usefixtures("short_pauses")
def test_a_limit_is_waited_out(node: Any, limited: Callable[[str, int], Path], limit: str) -> None:
    """More often than AiiDA would try, and quicker than `sbatch` itself."""
    log = limited(REFUSALS[limit], 7)
    submission = node.accept("true")
    began = time.monotonic()

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    assert time.monotonic() - began < 55
    assert len(log.read_text().split()) == 8
    told = node.events(submission)
    assert [each["state"] for each in told][:4] == ["accepted", "launched", "queued", "queued"]
    assert told[2]["reason"] == (
        f"Slurm takes no more jobs of this node now ({limit}); the node tries again"
    )
    assert "scheduler" not in told[2]
    assert told[3]["scheduler"]["job_id"]
    assert "queued" in told[3]["timings"]
    assert "reason" not in told[3]
    assert {each["attempt"] for each in told} == {1}
    assert told[-1]["state"] == "succeeded"


@pytest.mark.usefixtures("short_pauses")
def test_what_is_no_submit_limit_is_not_taken_for_one(
    node: Any, limited: Callable[[str, int], Path]
) -> None:
    limited(f"sbatch: error: Batch job submission failed: Invalid account\n{ACCOUNTING}", 1)

    chain = node.run(submission := node.accept("true"))

    assert not chain.is_finished_ok
    assert node.events(submission)[-1]["error"]["code"] == "scheduler_refused"


@pytest.mark.usefixtures("short_pauses")
def test_a_cancelled_job_waits_no_longer(node: Any, limited: Callable[[str, int], Path]) -> None:
    log = limited(REFUSALS["AssocMaxSubmitJobLimit"], 10_000)
    job = Underway(node, submission := node.accept("true"))
    job.until_state("queued")
    row = node.connection.execute(
        "SELECT job_id FROM byoc.job WHERE submission_id = %s", (submission,)
    ).fetchone()
    ledger.cancel(
        node.connection,
        cancel(job_id=row[0], workspace_id="w", management_node_id=node.settings.node_id),
        serve=lambda _: None,
        now=NOW,
    )

    def ended() -> bool:
        node.launcher.step()
        return bool(job.last["state"] == "cancelled" and job.process.has_terminated())

    job.until(ended, "the end")
    calls = len(log.read_text().split())
    job.until(lambda: True, "another turn")
    assert node.states(submission) == ["accepted", "launched", "queued", "cancelled"]
    assert len(log.read_text().split()) == calls


@pytest.mark.usefixtures("short_pauses")
def test_a_controller_that_is_full_is_waited_for(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real Slurm: it remembers as many jobs as it may, until one of them is forgotten."""
    with scratch_lab("full") as paths:
        cluster = slurm.start(paths, max_jobs=2, min_job_age=2)
        try:
            monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
            other = _sbatch()  # one less than it may remember is taken
            job = Underway(node, submission := node.accept("true"))
            waiting = job.until_state("queued")
            assert "(MaxJobCount)" in waiting["reason"]
            subprocess.run(["scancel", other], check=True)

            chain = job.finish(180)

            assert chain.is_finished_ok, chain.exit_message
            assert node.states(submission)[:4] == ["accepted", "launched", "queued", "queued"]
            assert {each["attempt"] for each in node.events(submission)} == {1}
        finally:
            slurm.stop(paths)


def test_those_who_wait_ask_one_at_a_time_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiida_byoc.calculations.submitting._FIRST_SECONDS", 0.01)
    line, limit, jobs = Line(), LimitReached("AssocMaxSubmitJobLimit"), ["a", "b", "c"]
    assert all(line.may_ask(job) for job in jobs)
    for job in ("a", "b"):
        line.refused(job, limit)

    assert not line.may_ask("c")
    assert not line.may_ask("b")
    wait_until(lambda: line.may_ask("a"), 5, "the first one's turn")
    assert not line.may_ask("b")

    line.taken()
    line.leave("a")
    assert [job for job in ("c", "b", "d") if line.may_ask(job)] == ["b"]
    line.leave("b")
    assert line.may_ask("c")
    assert not line.may_ask("d")


def _sbatch() -> str:
    command = ["sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
