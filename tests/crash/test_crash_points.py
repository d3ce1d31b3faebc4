"""SIGKILL at every named moment: nothing is lost, nothing is doubled, all of it in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest

import aiida_byoc
from aiida_byoc.crashpoints import POINTS
from lab.chaos.arena import Arena
from lab.chaos.load import Job, Load
from tests.eventually import eventually

HIT_SECONDS = 180
QUIET_SECONDS = 240
OF_ARRAYS = ("child.submitted", "slurm.submitted", "slurm.ended", "event.appended")
"""Points that an array passes otherwise than a single container; what it has in common with one does not ask."""


def some_jobs(arena: Arena, load: Load) -> None:
    """One of each kind."""
    load.succeeds(1)
    load.fails()
    load.cancelled(after=3)


def some_arrays(arena: Arena, load: Load) -> None:
    """An array is one job as well: each of its tasks succeeds once, or fails as often as there are attempts."""
    load.array(failing=[1])
    load.array(at_first=[0, 3])
    some_jobs(arena, load)


def undispatched_jobs(arena: Arena, load: Load) -> None:
    """Work chains without a task, as a broker apart from Postgres leaves them: no worker may be quicker."""
    if arena.lab["node"]["broker"] != "byoc.postgres":
        some_jobs(arena, load)
        return
    arena.parts.kill_daemon()
    load.succeeds()
    load.fails()
    launched = "job.state = 'launched' AND process_pk IS NOT NULL"
    eventually(
        lambda: _edit(arena, load, "DELETE FROM byoc.task WHERE process_pk = %s", launched), "tasks"
    )
    _edit(arena, load, "UPDATE byoc.job SET dispatched_at = NULL WHERE process_pk = %s", launched)
    arena.parts.start_daemon()


def stopped_jobs(arena: Arena, load: Load) -> None:
    """One of each kind is in Slurm when it is cancelled."""
    _cancel_in_slurm(
        arena,
        load,
        [load.cancelled(after=HIT_SECONDS), load.array(after=HIT_SECONDS, seconds=100)],
    )


def stopped_tasks(arena: Arena, load: Load) -> None:
    """Some tasks of an array that is in Slurm."""
    _cancel_in_slurm(arena, load, [load.array(after=HIT_SECONDS, seconds=5, withdrawn=range(1, 5))])


def _cancel_in_slurm(arena: Arena, load: Load, jobs: list[Job]) -> None:
    in_slurm = "job.state IN ('queued', 'running')"
    eventually(
        lambda: _edit(arena, load, "SELECT %s", in_slurm), "a job in Slurm", seconds=HIT_SECONDS
    )
    for job in jobs:
        job.cancel_now.set()


def paused_jobs(arena: Arena, load: Load) -> None:
    """`sbatch` fails until AiiDA pauses the calculation."""
    arena.lie("refuse", 3)
    load.succeeds()


def edited_jobs(arena: Arena, load: Load) -> None:
    """A pause that no hook tells: somebody writes into AiiDA's table."""
    load.succeeds(20)
    set_pause = "UPDATE db_dbnode SET attributes = attributes || '{\"paused\": true}' WHERE id = %s"
    lift_pause = "UPDATE db_dbnode SET attributes = attributes - 'paused' WHERE id = %s"
    eventually(
        lambda: _edit(arena, load, set_pause, "job.state = 'running'"), "a running job", seconds=90
    )
    eventually(lambda: arena.hit("sweep.found"), "the sweep", seconds=HIT_SECONDS)
    eventually(
        lambda: _edit(arena, load, lift_pause, "job.state = 'held'"), "a held job", seconds=90
    )


def old_jobs(arena: Arena, load: Load) -> None:
    """A job that ended two days ago; what the truths are asked about is a younger one."""
    old = arena.load()
    old.succeeds()
    assert arena.settle(old, QUIET_SECONDS).holds
    of_old = "submission_id = (SELECT submission_id FROM byoc.job WHERE process_pk = %s)"
    for column in (
        "byoc.event SET occurred_at = occurred_at",
        "byoc.job SET accepted_at = accepted_at",
    ):
        assert _edit(arena, old, f"UPDATE {column} - interval '2 days' WHERE {of_old}", "true")
    load.succeeds()


PROVOCATIONS: Mapping[str, Callable[[Arena, Load], None]] = {
    **dict.fromkeys(POINTS, some_jobs),
    **dict.fromkeys(OF_ARRAYS, some_arrays),
    "launch.dispatched": undispatched_jobs,
    "tasks.told": stopped_tasks,
    "stop.confirmed": stopped_jobs,
    "repair.played": paused_jobs,
    "sweep.found": edited_jobs,
    "retention.deleted": old_jobs,
}


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_dies_there_costs_nothing(arena: Arena, point: str) -> None:
    """I1, I2, I3, I8, I9, I10, I17: four truths agree about every job, whatever died."""
    if point == "task.claimed" and arena.lab["node"]["broker"] != "byoc.postgres":
        pytest.skip("a point of byoc.postgres")
    arena.arm(point)
    load = arena.load()

    PROVOCATIONS[point](arena, load)
    eventually(lambda: arena.hit(point), f"somebody to die at {point}", seconds=HIT_SECONDS)
    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


def test_every_point_is_in_the_code_once() -> None:
    """A point that no process passes would never be hit; a name that stands nowhere in the table, never armed."""
    package = Path(aiida_byoc.__file__).parent
    code = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))

    assert sorted(re.findall(r'reached\(\s*"([\w.]+)"', code)) == sorted(POINTS)


def test_the_document_lists_every_point() -> None:
    """As the code says it, in its order."""
    document = Path(__file__).parents[2] / "docs" / "reliability.md"
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \| (.+) \|$", document.read_text(), re.MULTILINE)

    assert rows == list(POINTS.items())


def _edit(arena: Arena, load: Load, statement: str, which: str) -> bool:
    """Run a statement for the work chain of each job of the load, once all of them are as they should be."""
    names = [job.job_id for job in load.jobs]
    with psycopg.connect(arena.lab["postgres"]["dsn"]) as connection:
        pks = connection.execute(
            f"SELECT process_pk FROM byoc.job WHERE job_id = ANY(%s) AND {which}",  # noqa: S608
            (names,),
        ).fetchall()
        if len(pks) < len(names):
            return False
        for pk in pks:
            connection.execute(statement, pk)
    return True
