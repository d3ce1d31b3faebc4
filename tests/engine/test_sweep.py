"""What no hook could tell, the sweep tells once and counts; what the hooks told, it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiida.manage import get_manager
from aiida.orm import load_node

from aiida_byoc.events import witness
from aiida_byoc.events.reconcile import Sweep
from tests.engine.driving import Underway

EXCEPTED = {"process_state": "excepted", "sealed": True}


@pytest.fixture
def sweep(node: Any) -> Sweep:
    """A sweep that has seen everything so far, and the witness in place."""
    sweep = Sweep(get_manager().get_profile_storage())
    sweep.full()
    sweep.marked()
    return sweep


@pytest.fixture
def repairs(node: Any, sweep: Sweep) -> Callable[[], dict[str, int]]:
    """How many repairs of each kind there were in this test."""

    def counts() -> dict[str, int]:
        return dict(node.connection.execute("SELECT kind, count FROM byoc.repair").fetchall())

    before = counts()
    return lambda: {
        kind: count - before.get(kind, 0)
        for kind, count in counts().items()
        if count > before.get(kind, 0)
    }


def edit(node: Any, pk: int, **attributes: Any) -> None:
    """Change a node as an operator does in the database; `None` removes an attribute."""
    import json

    node.connection.execute(
        "UPDATE db_dbnode SET attributes = jsonb_strip_nulls(attributes || %s::jsonb) WHERE id = %s",
        (json.dumps(attributes), pk),
    )


def marks(node: Any) -> int:
    """How many marks there are."""
    return int(node.connection.execute("SELECT count(*) FROM byoc.witness").fetchone()[0])


def test_an_undisturbed_job_needs_no_repair(
    node: Any, sweep: Sweep, repairs: Callable[[], dict[str, int]]
) -> None:
    """I8: after each step of the worker the last event says what the nodes say; no mark is left over."""
    job = Underway(node, node.accept("sleep", "1"))

    def ended() -> bool:
        sweep.marked()
        sweep.full()
        return job.process.has_terminated()

    job.until(ended, "the job to end")
    sweep.marked()

    assert job.states[-1] == "succeeded"
    assert repairs() == {}
    assert marks(node) == 0


def test_an_end_by_an_edit_is_told_once(
    node: Any, sweep: Sweep, repairs: Callable[[], dict[str, int]]
) -> None:
    """AiiDA's launcher writes so when it cannot load a checkpoint."""
    submission = node.accept()
    edit(node, node.launch(submission), **EXCEPTED)

    told = [sweep.marked(), sweep.marked(), sweep.full()]

    assert told == [1, 0, 0]
    assert node.states(submission) == ["accepted", "launched", "failed"]
    assert repairs() == {"ended": 1}
