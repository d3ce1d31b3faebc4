"""The node's side of the jobs' hints: its commands, run by bash, on what the program of a job leaves."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from aiida_byoc.runtimes.in_job import news as in_job
from aiida_byoc.schedulers import news

DAY = 24 * 3600
NOW = "2026-02-15T10:00:00.000Z"


def bash(command: str) -> str:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True
    ).stdout


def entries(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose name a shell could trip over."""
    place = tmp_path / "it's $(a) place"
    bash(news.open_command(str(place)))
    return place


def test_a_jobs_hints_are_looked_for_where_it_leaves_them(tmp_path: Path) -> None:
    job = tmp_path / "ab" / "cd" / "ef-0123"
    job.mkdir(parents=True)
    left = os.path.normpath(job / "../../../byoc_news")

    assert news.directory_of(str(job)) == left == str(tmp_path / "byoc_news")


def test_of_a_jobs_life_the_last_word_is_left(place: Path) -> None:
    says = in_job.News(str(place), "b-1")
    in_job.News(str(place), "b-12").say("started")

    for word in ("started", "started", "stopping", "ended"):
        says.say(word)
        assert news.heard(entries(place)) == {"b-1": {word}, "b-12": {"started"}}


def test_the_newest_report_is_read(place: Path) -> None:
    for name in ("b-1", "b-2"):
        says = in_job.News(str(place), name)
        for step in range(1, 13):
            says.report({"step": step, "reported_at": NOW})
    heard = news.heard(entries(place))

    assert heard == {"b-1": {"progress-12"}, "b-2": {"progress-12"}}
    assert news.newest_report({"progress-9", "progress-12", "ended"}) == "progress-12"
    assert news.newest_report({"ended"}) is None
    wanted = ["b-1.progress-12", "b-1.progress-13", "b-2.progress-12"]
    found = news.reports(bash(news.read_command(str(place), wanted)))
    assert {name: progress.step for name, progress in found.items()} == {"b-1": 12, "b-2": 12}


def test_what_is_no_report_is_left_out(place: Path) -> None:
    """Also when somebody else wrote it there, and however much it is."""
    files = {
        "b-1.progress-1": "no JSON\n",
        "b-2.progress-1": '{"job_name": "b-2", "step": -1}\n',
        "b-3.progress-1": "x" * 10**6,
        "b-4.progress-1": f'\n{{"job_name": "b-4", "step": 4, "reported_at": "{NOW}"}}\n',
    }
    for name, content in files.items():
        (place / name).write_text(content)
    (place / "b-5.progress-1").mkdir()

    output = bash(news.read_command(str(place), [*files, "b-5.progress-1"]))

    assert len(output) < 20_000
    assert list(news.reports(output)) == ["b-4"]


def test_what_ended_is_forgotten_and_nothing_else(place: Path) -> None:
    for name in ("b-1", "b-12", "b-2"):
        says = in_job.News(str(place), name)
        says.say("ended")
        says.report({"step": 1})

    bash(news.forget_command(str(place), ["b-1", "b-2", "b-3"]))

    assert set(news.heard(entries(place))) == {"b-12"}


def test_what_nobody_took_away_goes_after_a_day(place: Path) -> None:
    for name, age in (("b-1", 2 * DAY), ("b-2", DAY / 2)):
        (place / f"{name}.ended").touch()
        os.utime(place / f"{name}.ended", (time.time() - age,) * 2)

    bash(news.open_command(str(place)))

    assert set(news.heard(entries(place))) == {"b-2"}
    assert place.stat().st_mode & 0o777 == 0o700
