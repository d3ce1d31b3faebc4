"""What an array's elements wrote comes in one file, and says the same as theirs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.arrays.gathering import gather_command, lines
from aiida_byoc.runtimes.in_job import (
    ARRAY_TASKS,
    ELEMENTS,
    ENDED,
    GATHERED,
    RESULTS,
    TASK_RECORD,
)
from aiida_byoc.runtimes.in_job.array_task import directory_of


def begins(number: int) -> str:
    return json.dumps({"element": number}) + "\n"


def task(number: int, element: int) -> str:
    return json.dumps({"id": f"t{number}", "element": element}) + "\n"


def gathered(place: Path) -> list[dict[str, Any]]:
    subprocess.run(["bash", "-c", gather_command(str(place), 2)], check=True, timeout=30)
    return list(lines((place / GATHERED).parent))


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """Its directory; the name is no shell's friend."""
    place = tmp_path / "it's a job"
    (place / ELEMENTS).mkdir(parents=True)
    return place


def write(array: Path, number: int, text: str, name: str = ENDED) -> None:
    directory = array / ELEMENTS / str(number)
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)


def test_every_element_is_heard(array: Path) -> None:
    for number in range(1200):
        write(array, number, begins(number) + task(number, number))

    found = gathered(array)

    assert sorted(line["element"] for line in found) == sorted([*range(1200)] * 2)
    assert {line["id"] for line in found if "id" in line} == {f"t{n}" for n in range(1200)}


@pytest.mark.parametrize("kept", [0, 10, len(task(1, 1)) - 1])
def test_a_line_that_a_kill_cut_off_takes_no_other_with_it(array: Path, kept: int) -> None:
    for number in range(3):
        cut_off = number == 1
        text = begins(number) + task(number, number)[: kept if cut_off else None]
        write(array, number, text, RESULTS if cut_off else ENDED)

    found = gathered(array)

    whole = kept == len(task(1, 1)) - 1  # all but its end of line
    assert {line["id"] for line in found if "id" in line} == {
        "t0",
        "t2",
        *(["t1"] if whole else []),
    }
    assert {line["element"] for line in found if "id" not in line} == {0, 1, 2}


def test_a_task_is_heard_whose_record_is_all_that_a_kill_left(array: Path) -> None:
    """It was the last of an element of two tasks; a record that a power cut took is none."""
    tasks = [json.dumps([number, f"t{number}", []]) for number in (0, 1, 2, 1003, 4, 5)]
    (array / ARRAY_TASKS).write_text("\n".join(tasks) + "\n")
    write(array, 0, begins(0) + task(0, 0) + task(1, 0))
    write(array, 1, begins(1) + task(2, 1), RESULTS)
    write(array, 2, begins(2), RESULTS)
    for number, record in ((0, "{"), (2, task(2, 1)), (1003, task(1003, 1).strip()), (4, "\0" * 9)):
        directory = array / directory_of(number)
        directory.mkdir(parents=True)
        (directory / TASK_RECORD).write_text(record)

    found = gathered(array)

    assert {line["id"] for line in found if "id" in line} == {"t0", "t1", "t2", "t1003"}
    assert sorted(line["element"] for line in found if "id" not in line) == [0, 1, 2]


def test_an_attempt_that_an_earlier_version_began_is_heard(array: Path) -> None:
    """Its elements wrote `ended` beside their results; such a file may come after a line that a kill cut off."""
    numbers = json.dumps({"succeeded": 1, "failed": 0, "cancelled": 0})
    write(array, 0, begins(0) + task(0, 0), RESULTS)
    write(array, 0, numbers)

    assert {line["id"] for line in gathered(array) if "id" in line} == {"t0"}
    (array / GATHERED).write_text(
        f"{begins(1)}{task(1, 1)[:10]}\n{numbers}\n{begins(0)}{task(0, 0)}"
    )
    found = list(lines((array / GATHERED).parent))
    assert {line["id"] for line in found if "id" in line} == {"t0"}


def test_another_line_that_is_none_is_told(array: Path) -> None:
    write(array, 0, begins(0) + "{broken\n" + task(1, 0))

    with pytest.raises(ValueError, match="Expecting"):
        gathered(array)


def test_an_array_that_never_began_has_left_nothing(array: Path, tmp_path: Path) -> None:
    assert gathered(tmp_path / "gone") == []
    (array / ELEMENTS).rmdir()
    assert gathered(array) == []


def test_files_that_were_fetched_one_by_one_say_the_same(array: Path) -> None:
    for number in range(3):
        write(array, number, begins(number) + task(number, number), RESULTS)

    found = list(lines((array / ELEMENTS).parent))

    assert len(found) == 6
    assert sorted(map(str, found)) == sorted(map(str, gathered(array)))
