"""What an element is made of comes in one file, from the first one on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job import packed
from tests.unit.node.inside import Job
from tests.unit.node.test_in_job_array import array, element, results


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    job = Job(tmp_path / "job", words=packed.START)
    array(job, "echo $1 > result", [(str(n),) for n in range(3)], pack=1, elements=3)
    return job


def file_of(job: Job) -> Path:
    return job.directory / in_job.PROGRAM / "__pycache__" / f"packed.{MAGIC_NUMBER.hex()}"


def test_later_elements_look_for_no_module(job: Job) -> None:
    assert element(job, 0) == 0

    assert element(replace(job, words=("-X", "importtime", *packed.START)), 1) == 0
    for module in (job.directory / in_job.PROGRAM).glob("*.py"):
        module.unlink()
    assert element(job, 2) == 0

    said = job.said("stderr")
    assert "_json" in said
    assert in_job.PROGRAM not in said
    assert [results(job, number)[f"t{number}"]["state"] for number in (1, 2)] == ["succeeded"] * 2


def test_what_else_is_needed_is_found_beside_the_task(job: Job) -> None:
    """It is looked for when the element has entered the task's directory."""
    outputs = [{"name": "result", "required": True}]
    array(job, "echo $1 > result", [("a",), ("b",)], pack=1, elements=2, outputs=outputs)

    assert [element(job, number) for number in range(2)] == [0, 0]

    assert file_of(job).exists()
    assert [each["name"] for each in results(job, 1)["t1"]["outputs"]] == ["result"]


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-100], lambda _: b"", lambda _: b"no code"])
def test_a_spoilt_file_is_not_used(job: Job, spoil: Callable[[bytes], bytes]) -> None:
    assert element(job, 0) == 0
    file_of(job).write_bytes(spoil(file_of(job).read_bytes()))

    assert element(job, 1) == 0

    assert results(job, 1)["t1"]["state"] == "succeeded"


def test_one_that_cannot_be_written_stops_nobody(job: Job) -> None:
    (job.directory / in_job.PROGRAM / "__pycache__").write_text("in the way")

    assert [element(job, number) for number in range(2)] == [0, 0]
