"""What happens in Slurm is known at once, and costs Slurm no more questions when there are more jobs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.common.datastructures import CalcJobState
from aiida.orm import Computer

from aiida_byoc.calculations import lookout
from aiida_byoc.runtimes import in_job
from tests.engine.driving import RUN_LOG, Underway, nothing_starts, run

UNTIL_GO = f"{RUN_LOG}; while [ ! -e go ]; do sleep 0.1; done"
SELDOM = 60.0
WAITS = CalcJobState.WITHSCHEDULER
IDLE_SECONDS = 2.0


@pytest.fixture(autouse=True)
def seldom_asked(computer: Computer) -> Iterator[None]:
    """Without news, Slurm is asked about old jobs once a minute."""
    before = computer.get_minimum_job_poll_interval()
    computer.set_minimum_job_poll_interval(SELDOM)
    yield
    computer.set_minimum_job_poll_interval(before)


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What `squeue` was asked for since this was last called."""
    log, program = tmp_path / "questions", tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {shutil.which("squeue")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    def asked() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return asked


def news(job: Underway) -> Path:
    return (job.directory / in_job.NEWS).resolve()


def said(job: Underway) -> set[str]:
    """What the job left for the node."""
    return {path.name for path in news(job).glob(f"{job.name}.*")}


def grow_old(*jobs: Underway) -> None:
    """Wait until jobs run, then age them."""
    for job in jobs:
        job.until_state("running", 120)
        job.until(lambda job=job: said(job), "the job to say that it runs")
    age(jobs[0])


def age(job: Underway) -> None:
    """Let all jobs be of yesterday: without news, the next question is far away."""
    idle(job, 1.0)
    for of_worker in lookout._LOOKOUTS.values():
        for place in of_worker.values():
            for post in place._posts.values():
                post.changed -= 24 * 3600


def go(*jobs: Underway) -> None:
    for job in jobs:
        (job.directory / "work" / "go").touch()


def idle(job: Underway, seconds: float) -> None:
    """Let the worker work for a while in which nothing happens."""
    until = time.monotonic() + seconds
    job.until(lambda: time.monotonic() > until, "the time to pass")


def test_an_end_is_known_within_two_seconds_and_told(node: Any) -> None:
    """From the completion record on; the best of three, for machines that have more to do."""
    took = []
    while len(took) < 3 and (not took or min(took) >= 2):
        job = Underway(node, node.accept("sh", "-c", UNTIL_GO))
        grow_old(job)
        go(job)
        record = job.directory / in_job.RECORD
        job.until(record.exists, "the record")
        began = time.monotonic()
        job.until(lambda job=job: job.attempt.get_state() is not WAITS, "the end to be known")
        took.append(time.monotonic() - began)
        job.until_state("succeeded", SELDOM / 3)
        job.finish()
        assert job.runs == 1

    assert min(took) < 2


def test_a_start_is_told_when_it_happens(node: Any, scontrol: Callable[..., str]) -> None:
    with nothing_starts(scontrol):
        job = Underway(node, node.accept("sh", "-c", UNTIL_GO))
        job.until_state("queued")
        age(job)

    job.until_state("running", SELDOM / 3)
    go(job)
    job.finish()

    assert job.states[-2:] == ["running", "succeeded"]
    assert said(job) == set()


def test_a_job_that_slurm_stops_is_told_when_it_happens(node: Any) -> None:
    """By an administrator, at its walltime, or for another job: Slurm's SIGTERM comes first."""
    job = Underway(node, node.accept("sh", "-c", UNTIL_GO))
    grow_old(job)

    run("scancel", job.last["scheduler"]["job_id"])
    job.until_state("failed", SELDOM / 3)
    job.finish()

    assert job.runs == 1


def test_many_jobs_are_one_question(node: Any, questions: Callable[[], list[str]]) -> None:
    """While nothing happens none at all; then one for all the jobs that changed, and one for their witnesses."""
    jobs = [Underway(node, node.accept("sh", "-c", UNTIL_GO)) for _ in range(4)]
    grow_old(*jobs)
    questions()

    idle(jobs[0], IDLE_SECONDS)
    in_peace = questions()
    go(*jobs)
    for job in jobs:
        job.until_state("succeeded")
    at_the_end = questions()

    assert in_peace == []
    assert "--jobs" in at_the_end[0]
    assert at_the_end[0].partition("--jobs")[2].count(",") == len(jobs) - 1
    assert sum("--name=" in question for question in at_the_end) < len(jobs)
    for job in jobs:
        job.finish()


def test_a_hint_is_no_evidence(node: Any, questions: Callable[[], list[str]]) -> None:
    """Slurm is asked, and contradicts."""
    job = Underway(node, node.accept("sh", "-c", UNTIL_GO))
    grow_old(job)
    questions()

    (news(job) / f"{job.name}.ended").touch()
    job.until(questions, "the question to Slurm")
    idle(job, 1.0)

    assert job.last["state"] == "running"
    go(job)
    assert job.finish().is_finished_ok


def test_without_a_place_for_news_slurm_is_asked_at_intervals(
    node: Any, computer: Computer, paths: Any
) -> None:
    place = paths.directory("work") / Path(in_job.NEWS).name
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("in the way")
    computer.set_minimum_job_poll_interval(0.2)
    try:
        job = Underway(node, node.accept("true"))
        chain = job.finish()
    finally:
        place.unlink()

    assert chain.is_finished_ok, chain.exit_message


def test_progress_is_told_while_the_job_runs(node: Any) -> None:
    """The newest report, in an event of its own; then in every one, and at last the one that nobody had told."""
    report = """echo '{"step": %s, "steps": 9, "message": "so far"}' >> "$BYOC_PROGRESS";"""
    script = f"{report % 1} {report % 2} {UNTIL_GO}; {report % 9}"
    job = Underway(node, node.accept("sh", "-c", script))

    job.until(lambda: "progress" in job.last, "progress")
    told = job.last
    go(job)
    job.finish()

    assert (told["state"], told["progress"]["step"]) == ("running", 2)
    assert job.states == ["accepted", "launched", "queued", "running", "running", "succeeded"]
    assert (job.last["progress"]["step"], job.last["progress"]["steps"]) == (9, 9)
    assert said(job) == set()
