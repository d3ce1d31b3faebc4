"""What an array's reporter counts is on the disk before anybody hears of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aiida_byoc.contracts.progress import Progress
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job.array_progress import Reporter
from aiida_byoc.runtimes.in_job.news import News

SPECIFICATION = {"progress_seconds": 1, "array": {"total": 9, "succeeded": 0, "pack": 4}}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The directory of an attempt."""
    (tmp_path / in_job.ELEMENTS).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def reporter(here: Path) -> Reporter:
    return Reporter(SPECIFICATION, News(str(here / "news"), "b-1"), str(here))


@pytest.fixture
def synced(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The elements whose results were synced, and "told" for each report."""
    steps: list[str] = []

    def sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert path.name == in_job.ENDED
        steps.append(path.parent.name)

    def rename(source: str, target: str) -> None:
        steps.append("told")
        Path(source).replace(target)

    monkeypatch.setattr("aiida_byoc.runtimes.in_job.news.os.rename", rename)
    monkeypatch.setattr(os, "fsync", sync)
    return steps


def note(here: Path, number: int, name: str, succeeded: int = 1) -> None:
    """What an element notes of itself, and before that of its tasks."""
    place = here / in_job.ELEMENTS / str(number)
    place.mkdir(exist_ok=True)
    text = json.dumps({"succeeded": succeeded, "failed": 0, "cancelled": 0})
    (place / name).write_text(f"{'x' * 100_000}\n{text}\n" if name == in_job.ENDED else text)


def told(here: Path) -> Progress:
    """The report, as the node reads it."""
    (report,) = (here / "news").glob("b-1.progress-*")
    progress = Progress.read(json.loads(report.read_text()))
    assert progress is not None
    return progress


def step(here: Path) -> int:
    return told(here).step or 0


def test_of_long_names_the_newest_are_told_that_a_report_has_room_for(
    here: Path, reporter: Reporter
) -> None:
    names = [f"{number}{'x' * 63}" for number in range(in_job.MOST_NAMED)]
    counts = {"succeeded": 0, "failed": 9, "cancelled": 0, "which": names}
    (here / in_job.ELEMENTS / "0").mkdir()
    (here / in_job.ELEMENTS / "0" / in_job.DONE).write_text(json.dumps(counts))

    reporter.report()

    assert told(here).message == f"failed of late: {', '.join(names[3:])}"


def test_tasks_of_elements_that_the_node_has_closed_are_over(
    here: Path, reporter: Reporter
) -> None:
    """The last has fewer than the others, and no element has any after it."""
    note(here, 0, in_job.ENDED, succeeded=4)
    for number in (1, 2):
        (here / in_job.ELEMENTS / str(number)).mkdir()
        (here / in_job.ELEMENTS / str(number) / in_job.ENDED).touch()

    reporter.report()

    assert (told(here).step, told(here).steps) == (9, 9)
    assert told(here).metrics == {"tasks_succeeded": 4, "tasks_failed": 0, "tasks_cancelled": 5}


def test_results_are_synced_once_and_before_they_are_told(
    here: Path, reporter: Reporter, synced: list[str]
) -> None:
    note(here, 0, in_job.ENDED)
    note(here, 1, in_job.DONE)  # it syncs its own
    note(here, 3, in_job.ENDED)

    reporter.report()
    assert (sorted(synced[:2]), synced[2:], step(here)) == (["0", "3"], ["told"], 3)

    note(here, 1, in_job.ENDED, succeeded=2)
    note(here, 2, in_job.ENDED)
    reporter.report()
    assert (sorted(synced[3:5]), synced[5:], step(here)) == (["1", "2"], ["told"], 5)


def test_whoever_goes_on_syncs_what_nobody_has(
    here: Path, reporter: Reporter, synced: list[str]
) -> None:
    """Of the first elements, up to one that has not ended, the reporter before has seen to it."""
    note(here, 0, in_job.ENDED)
    note(here, 2, in_job.ENDED)
    reporter.report()
    reporter.close()
    synced.clear()

    other = Reporter(SPECIFICATION, News(str(here / "news"), "b-1"), str(here))
    note(here, 1, in_job.ENDED)
    other.report()

    assert (sorted(synced[:-1]), synced[-1], step(here)) == (["1", "2"], "told", 3)


def test_what_cannot_be_synced_is_not_told(
    here: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError("the disk is broken")

    note(here, 0, in_job.ENDED)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        reporter.report()
    assert not list((here / "news").glob("b-1.progress-*"))

    reporter.report()
    assert step(here) == 1
