"""Arrays as the contract has them: what is refused names the row and the column, and templates are literal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.array import ArrayTasks, ArrayWorkload, parts
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated
from aiida_byoc.runtimes.in_job.array_task import render
from tests.builders import submit_body

TABLE = {"columns": ["a", "b"], "rows": [["1", "2"], ["3", "4"]]}


def array(**workload: Any) -> dict[str, Any]:
    kind = {"kind": "array", "image": "localhost/byoc/demo:1", "tasks": TABLE, "argv": ["x", "{a}"]}
    return submit_body(workload={**kind, **workload})


def faults(command: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ProblemError) as refused:
        validated(SubmitJobCommand, command)
    return {error.field: error.message for error in refused.value.errors}


def workload(**changes: Any) -> ArrayWorkload:
    found = validated(SubmitJobCommand, array(**changes)).workload
    assert isinstance(found, ArrayWorkload)
    return found


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        (
            {"argv": ["x", "{z}"]},
            "workload.argv.1",
            "parameter z that is neither a column nor one of a, b, task_id",
        ),
        ({"env": {"A": "{ a }"}}, "workload.env.A", "neither a column"),
        ({"argv": ["{"]}, "workload.argv.0", "single brace"),
        ({"argv": ["a}b"]}, "workload.argv.0", "single brace"),
        (
            {"tasks": {**TABLE, "rows": [["1", "2"], ["3"]]}},
            "workload.tasks.rows",
            "row 1 has no value in column 1, b",
        ),
        (
            {"tasks": {**TABLE, "rows": [["1", "2", "3"]]}},
            "workload.tasks.rows",
            "row 0 has a value in column 2, but there is none",
        ),
        ({"tasks": {**TABLE, "rows": [["1", "2"], ["3", 4]]}}, "workload.tasks.rows.1.1", "string"),
        ({"tasks": {**TABLE, "rows": []}}, "workload.tasks.rows", "at least 1"),
        ({"tasks": {**TABLE, "rows": [["1", "\n"]]}}, "workload.tasks.rows.0.1", "control"),
        (
            {"tasks": {**TABLE, "ids": ["k", "k"]}},
            "workload.tasks.ids",
            "row 1 has the id of row 0",
        ),
        (
            {"tasks": {**TABLE, "ids": ["k"]}},
            "workload.tasks",
            "has 2 tasks and 1 ids: row 1 has none",
        ),
        (
            {"tasks": {**TABLE, "ids": ["k", "l", "m"]}},
            "workload.tasks",
            "has 2 tasks and 3 ids: id 2 has no row",
        ),
        (
            {"tasks": {**TABLE, "columns": ["a", "a"]}},
            "workload.tasks.columns",
            "column 1 has the name of column 0",
        ),
        (
            {"tasks": {**TABLE, "columns": ["a", "task_id"]}},
            "workload.tasks.columns.1",
            "every task has already",
        ),
        ({"tasks": {**TABLE, "count": 2}}, "workload.tasks", "exactly one of rows or count"),
        ({"tasks": {}}, "workload.tasks", "exactly one of rows or count"),
        ({"tasks": {"count": 100_001}}, "workload.tasks.count", "100000"),
        ({"tasks": {"count": 0}}, "workload.tasks.count", "1"),
        ({"pack": 0}, "workload.pack", "1"),
        ({"task_seconds": 0}, "workload.task_seconds", "0"),
        ({"task_seconds": 1e6}, "workload", "must not exceed"),
        ({"outputs": [{"name": "a"}, {"name": "a/b"}]}, "workload", "both a file and a directory"),
        (
            {"inputs": [{"name": "a", "text": ""}], "outputs": [{"name": "a"}]},
            "workload",
            "'a' is an input, which the job cannot change",
        ),
        ({"checkpoint": {}}, "workload.checkpoint", "not permitted"),
    ],
)
def test_a_faulty_array_is_refused_where_the_fault_is(
    changes: dict[str, Any], field: str, says: str
) -> None:
    found = faults(array(**changes))

    assert says in found[field], found


FILE = {"url": "https://data.example/t.json", "sha256": "0" * 64}


def test_a_table_may_be_elsewhere() -> None:
    """What is promised of it can be checked at once: how many tasks, and the templates."""
    tasks = workload(tasks={"columns": ["a"], "count": 2, "file": FILE}).tasks

    whole = tasks.read(b'{"rows": [["1"], ["2"]], "ids": ["x", "y"]}')

    assert list(whole.tasks()) == [(0, "x", ["1", "x", "0"]), (1, "y", ["2", "y", "1"])]
    assert (
        "neither a column"
        in faults(array(tasks={"count": 2, "file": FILE}, argv=["{a}"]))["workload.argv.0"]
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no", "is not JSON"),
        (b'{"rows": ' + 100_000 * b"[", "is not JSON"),
        (b"[]", "must be an object with rows"),
        (b'{"rows": [["1"]], "count": 1}', "must be an object with rows"),
        (b'{"rows": [["1"]]}', "has 1 rows, not 2"),
        (b'{"rows": [["1"], []]}', "row 1 has no value in column 0, a"),
        (b'{"rows": [["1"], [2]]}', "rows.1.0: Input should be a valid string"),
        (b'{"rows": [["1"], ["2"]], "ids": ["x", "x"]}', "row 1 has the id of row 0"),
    ],
)
def test_a_file_with_other_tasks_is_refused_where_the_fault_is(content: bytes, says: str) -> None:
    tasks = ArrayTasks.model_validate({"columns": ["a"], "count": 2, "file": FILE})

    with pytest.raises(ValueError, match=re.escape(says)):
        tasks.read(content)


@pytest.mark.parametrize(
    "tasks", [{"rows": [[]], "file": FILE}, {"count": 1, "ids": ["x"], "file": FILE}]
)
def test_a_file_has_the_rows_and_the_ids(tasks: dict[str, Any]) -> None:
    assert "with a file" in faults(array(tasks=tasks, argv=["x"]))["workload.tasks"]


def test_an_array_is_dealt_out_on_one_node() -> None:
    command = array()
    command["resource_shape"] = {**command["resource_shape"], "nodes": 2}

    assert "nodes and tasks_per_node of 1" in faults(command)["workload"]


def test_only_an_array_has_tasks_that_fail() -> None:
    policy = {"max_attempts": 2, "on": ["tasks_failed"]}

    assert validated(SubmitJobCommand, {**array(), "retry_policy": policy})
    assert "only an array" in faults(submit_body(retry_policy=policy))["retry_policy"]


def test_tasks_have_numbers_ids_and_values() -> None:
    table = workload(tasks={**TABLE, "ids": ["x", "y"]}).tasks
    counted = workload(tasks={"count": 2}, argv=["{task_id}"]).tasks

    assert list(table.tasks()) == [(0, "x", ["1", "2", "x", "0"]), (1, "y", ["3", "4", "y", "1"])]
    assert list(counted.tasks()) == [(0, "0", ["0", "0"]), (1, "1", ["1", "1"])]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{a}", "{b} $(id)"),
        ("--x={a}{b}", "--x={b} $(id)v"),
        ("{{a}}", "{a}"),
        ("{{{b}}}", "{v}"),
        ("{task_id}/{task_number}", "t7/7"),
    ],
)
def test_a_value_is_put_in_as_it_is(template: str, says: str) -> None:
    """What looks like a parameter in a value is none."""
    tasks = ArrayTasks(columns=["a", "b"], rows=[["{b} $(id)", "v"]])

    assert render(parts(template, tasks.parameters), ["{b} $(id)", "v", "t7", "7"]) == says
