"""An approved work chain on the engine: submitted once, whatever dies; its end is its own."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.orm import InstalledCode, load_node
from plumpy.persistence import LoadSaveContext

from aiida_byoc.commands import ledger
from aiida_byoc.commands.placement import WorkchainPlacement
from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from tests.builders import submit_body


@pytest.fixture(scope="session")
def code(computer: Any) -> str:
    InstalledCode(label="bash", computer=computer, filepath_executable="/bin/bash").store()
    return "bash@cluster"


@pytest.fixture
def accept(node: Any, code: str) -> Any:
    """Put a work chain into the ledger; return its submission id."""

    def accept(entry_point: str = "core.arithmetic.multiply_add", **inputs: Any) -> str:
        workload = {"kind": "workchain", "entry_point": entry_point, "inputs": inputs}
        changes = {"job_id": f"job-{uuid.uuid4().hex[:12]}", "workload": workload}
        command = validated(SubmitJobCommand, submit_body(**changes))
        place = WorkchainPlacement(
            partition="main", codes=[code], defaults={"code": code}, options=[]
        )
        accepted, _ = ledger.accept(
            node.connection,
            command,
            str(uuid.uuid4()),
            place=lambda _: place,
            now=datetime.now(UTC),
        )
        return accepted.submission_id

    return accept


def children(pk: int) -> list[Any]:
    return load_node(pk).base.links.get_outgoing(link_type=LinkType.CALL_WORK).all_nodes()


def test_i1_a_step_that_runs_again_takes_up_the_child_of_the_first(node: Any, accept: Any) -> None:
    """A worker died after the child's submission, before its own checkpoint."""
    submission = accept(x=1, y=2, z=3)
    pk = node.launch(submission)
    process = node.load(pk)
    loop = node.runner.loop
    loop.run_until_complete(process.step())  # created → running
    before = node.runner.persister.load_checkpoint(pk)
    loop.run_until_complete(process.step())
    (first,) = children(pk)
    process.close()

    again = before.unbundle(LoadSaveContext(runner=node.runner, loop=loop))
    loop.run_until_complete(again.step_until_terminated())

    assert [child.pk for child in children(pk)] == [first.pk]
    assert node.states(submission) == ["accepted", "launched", "queued", "running", "succeeded"]
    result = node.events(submission)[-1]["result"]
    assert result["values"] == [{"name": "result", "json_text": "5"}]


@pytest.mark.parametrize(
    ("entry_point", "code", "said"),
    [
        ("no.such.workchain", "workchain_unavailable", "no.such.workchain"),
        ("core.arithmetic.add_multiply", "workchain_unavailable", "a function, not a work chain"),
        ("core.arithmetic.multiply_add", "inputs_invalid", "inputs"),
    ],
)
def test_what_cannot_run_says_why_and_runs_nothing(
    node: Any, accept: Any, entry_point: str, code: str, said: str
) -> None:
    submission = accept(entry_point, x=1, y=2)

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"]) == ("failed", code)
    assert said in last["error"]["message"]
    assert chain.called == []


def test_a_cancel_that_comes_first_submits_nothing(node: Any, accept: Any) -> None:
    submission = accept(x=1, y=2, z=3)
    pk = node.launch(submission)
    node.connection.execute(
        "UPDATE byoc.job SET cancel_requested_at = now() WHERE submission_id = %s", (submission,)
    )

    node.runner.loop.run_until_complete(node.load(pk).step_until_terminated())

    assert node.states(submission)[-1] == "cancelled"
    assert children(pk) == []
