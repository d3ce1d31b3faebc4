"""SIGKILL at every named moment: nothing is lost, nothing is doubled, all of it in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import aiida_byoc
from aiida_byoc.crashpoints import POINTS
from lab.chaos.arena import Arena
from lab.chaos.load import Load
from tests.eventually import eventually

HIT_SECONDS = 120
QUIET_SECONDS = 240


def some_jobs(load: Load) -> None:
    """One of each kind."""
    load.succeeds(1)
    load.fails()
    load.cancelled(after=4)


CASES: dict[str, tuple[str, Callable[[Load], object]]] = {
    point: (point, some_jobs) for point in POINTS
}


@pytest.mark.parametrize("case", CASES)
def test_a_process_that_dies_there_costs_nothing(arena: Arena, case: str) -> None:
    """I1, I2, I3, I8, I9, I10, I17: four truths agree about every job, whatever died."""
    point, submit = CASES[case]
    arena.arm(point)
    load = arena.load()

    submit(load)
    eventually(lambda: arena.hit(point), f"somebody to die at {point}", seconds=HIT_SECONDS)
    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


def test_every_point_is_in_the_code_once() -> None:
    """A point that no process passes would never be hit; a name that stands nowhere in the table, never armed."""
    package = Path(aiida_byoc.__file__).parent
    code = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))

    assert sorted(re.findall(r'reached\(\s*"([\w.]+)"', code)) == sorted(POINTS)
    assert {point for point, _ in CASES.values()} == set(POINTS)
