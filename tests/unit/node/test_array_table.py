"""The table of an array's tasks: what an attempt has to do, and what all of them have done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.arrays.table import Table, created, opened
from aiida_byoc.contracts.array import ArrayTasks


def result(number: int, state: str = "succeeded", **facts: Any) -> dict[str, Any]:
    return {
        "number": number,
        "id": f"t{number}",
        "state": state,
        "attempt": 1,
        "exit_code": 0 if state == "succeeded" else 3,
        "started_at": 1.0,
        "ended_at": 2.0,
        "cpu_seconds": 0.5,
        "peak_rss_mib": float(number),
        "message": None,
        "outputs": [],
        "node": "n1",
        **facts,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.sqlite"
    ids = [f"t{number}" for number in range(4)]
    with created(path, ArrayTasks(columns=["x"], rows=[["a"], ["b"], ["c"], ["d"]], ids=ids)):
        pass
    return path


@pytest.fixture
def table(path: Path) -> Iterator[Table]:
    with opened(path) as table:
        yield table


def test_at_first_all_are_to_run(table: Table) -> None:
    assert len(table) == 4
    assert next(table.to_run()) == (0, "t0", ["a", "t0", "0"])
    assert table.counts() == {
        "waiting": 4,
        "succeeded": 0,
        "failed": 0,
        "interrupted": 0,
        "cancelled": 0,
    }


def test_an_attempt_leaves_nothing_waiting(path: Path) -> None:
    with opened(path) as table:
        table.take([result(0), result(1, "failed")])
        table.close_attempt(1)

    with opened(path) as again:
        counts = again.counts()
        assert counts == {
            "waiting": 0,
            "succeeded": 1,
            "failed": 1,
            "interrupted": 2,
            "cancelled": 0,
        }
        assert [task[0] for task in again.to_run()] == [1, 2, 3]
        assert [each["number"] for each in again.failures()] == [1, 2, 3]
        assert again.failures(1) == [{"number": 1, "id": "t1", "state": "failed", "exit_code": 3}]
        assert again.worst_exit_code() == 3
        assert again.usage() == {"cpu_seconds": 1.0, "peak_rss_mib": 1.0}


def test_a_task_that_nobody_wants_is_cancelled_however_it_was_interrupted(table: Table) -> None:
    """Before it began, or while it ran; what ended before stays as it is."""
    table.take([result(0), result(1, "failed"), result(2, "interrupted")])

    assert table.cancel([(0, 3)], unended=True) == 2
    states = [row["state"] for row in table.page(only_failed=False, after=-1, most=4)]
    assert states == ["succeeded", "failed", "cancelled", "cancelled"]


def test_of_a_task_that_did_not_end_nothing_of_an_earlier_attempt_is_told(table: Table) -> None:
    table.take([result(1, "failed", message="no", outputs=[])])
    table.close_attempt(1)
    table.begin()
    table.close_attempt(2)

    (row,) = table.page(only_failed=True, after=0, most=1)
    told = {name: each for name, each in row.items() if each not in (None, [])}
    assert told == {
        "number": 1,
        "id": "t1",
        "parameters": ["b"],
        "state": "interrupted",
        "attempt": 2,
    }
    assert table.worst_exit_code() == 1


def test_how_long_tasks_took_is_known_once_one_has_succeeded(table: Table) -> None:
    table.take([result(0, "failed", ended_at=90.0)])
    assert table.mean_seconds() is None

    table.take([result(1, ended_at=2.0), result(2, ended_at=4.0)])
    assert table.mean_seconds() == 2.0


def test_what_succeeded_stays_so(table: Table) -> None:
    table.take([result(0)])
    table.begin()
    table.take([result(0, "failed", attempt=2), result(1, attempt=2)])

    states = [
        (row["state"], row["attempt"]) for row in table.page(only_failed=False, after=-1, most=2)
    ]
    assert states == [("succeeded", 1), ("succeeded", 2)]


def test_a_result_of_another_id_is_nobodys(table: Table) -> None:
    table.take([result(0, id="t1")])

    assert table.counts()["waiting"] == 4


def test_it_is_read_by_page(table: Table) -> None:
    table.take([result(1, outputs=[{"name": "o", "size": 1, "sha256": "0", "location": "remote"}])])

    (first,) = table.page(only_failed=True, after=-1, most=1)
    (third,) = table.page(only_failed=True, after=first["number"], most=1)
    (second,) = table.page(only_failed=False, after=0, most=1)

    assert (first["number"], first["parameters"], first["outputs"]) == (0, ["a"], [])
    assert third["number"] == 2
    assert second["outputs"] == [{"name": "o", "size": 1, "sha256": "0"}]
