"""What the node's owner allows of arrays is checked before acceptance, and stored with the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.arrays.rules import Arrays
from aiida_byoc.cli.policy_machine import findings
from aiida_byoc.commands.placement import Placement
from aiida_byoc.commands.policy import Policy
from aiida_byoc.contracts.problems import FieldError, ProblemError
from tests.builders import DIGEST, POLICY, submit

RULES = "[arrays]\ntasks = 100\nelements = 10\nat_a_time = 4\n\n"
FILE = {"url": "https://data.example/t.json", "sha256": "0" * 64}


def policy(tmp_path: Path, rules: str = RULES) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace("[queues.main]", f"{rules}[queues.main]"))
    return Policy.load(path)


def array(tasks: dict[str, Any], **changes: Any) -> Any:
    kind = {"kind": "array", "image": f"localhost/byoc/demo@{DIGEST}", "argv": ["x"]}
    return submit(workload={**kind, "tasks": tasks, **changes})


def refused(rules: Policy, *words: Any, **changes: Any) -> list[FieldError]:
    with pytest.raises(ProblemError) as caught:
        rules.place(array(*words, **changes))
    return caught.value.errors


def test_an_array_is_placed_with_the_rules_that_count_now(tmp_path: Path) -> None:
    placed = policy(tmp_path).place(array({"count": 100}, pack=20))

    assert isinstance(placed, Placement)
    assert placed.arrays == Arrays(tasks=100, elements=10, at_a_time=4)
    assert (placed.elements, placed.at_a_time) == (5, 4)


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ({"count": 101}, "workload.tasks.count"),
        ({"rows": [[]] * 101}, "workload.tasks.rows"),
        ({"count": 101, "file": FILE}, "workload.tasks.count"),
    ],
)
def test_more_tasks_than_the_owner_takes_are_refused(
    tmp_path: Path, tasks: dict[str, Any], field: str
) -> None:
    fields = {each.field: each.message for each in refused(policy(tmp_path), tasks)}

    assert fields[field] == "has 101 tasks, the node takes 100 in one array"


def test_more_than_slurm_takes_is_refused(tmp_path: Path) -> None:
    (error,) = refused(policy(tmp_path), {"count": 100}, pack=9)

    assert (error.field, error.remedy) == ("workload.pack", "use 10 or more")


def test_nor_more_than_the_node_may_have_in_slurm(tmp_path: Path) -> None:
    limited = policy(tmp_path, f"{RULES}[limits]\nslurm_jobs = 5\n\n")

    (error,) = refused(limited, {"count": 100}, pack=10)

    assert (error.field, error.remedy) == ("workload.pack", "use 20 or more")


def test_what_slurm_said_last_counts_where_it_is_less_than_the_owner_allows(tmp_path: Path) -> None:
    """More tasks are packed more closely, and a command that wants them packed otherwise is refused."""
    rules = policy(tmp_path)

    placed = rules.with_arrays_up_to(5).place(array({"count": 100}))
    (error,) = refused(rules.with_arrays_up_to(5), {"count": 100}, pack=10)
    (none,) = refused(rules.with_arrays_up_to(0), {"count": 1})

    assert (placed.arrays.elements, placed.elements) == (5, 4)
    assert (error.field, error.remedy) == ("workload.pack", "use 20 or more")
    assert none.remedy == "the node takes no arrays"
    for most in (None, 10, 10_001):
        assert rules.with_arrays_up_to(most) is rules


def test_an_owner_may_take_no_arrays(tmp_path: Path) -> None:
    (error,) = refused(policy(tmp_path, "[arrays]\ntasks = 0\n\n"), {"count": 1})

    assert error.remedy == "the node takes no arrays"


def test_a_table_comes_from_a_host_that_the_owner_allows(tmp_path: Path) -> None:
    (error,) = refused(policy(tmp_path), {"count": 1, "file": FILE})
    allowed = policy(tmp_path, f'{RULES}[data]\nhosts = ["data.example"]\n\n')

    assert error.field == "workload.tasks.file.url"
    assert allowed.place(array({"count": 1, "file": FILE}))


def test_a_runtime_for_one_container_runs_no_array(tmp_path: Path) -> None:
    rules = policy(tmp_path)

    (error,) = refused(rules.model_copy(update={"runtime": "apptainer"}), {"count": 1})

    assert error.field == "workload.kind"


def test_every_element_counts_against_the_node_hours(tmp_path: Path) -> None:
    """Ten elements of a minute are ten minutes."""
    hours = f"{RULES}[quotas]\nnode_hours = 0.15\n\n"

    (error,) = refused(policy(tmp_path, hours), {"count": 100}, pack=10)

    assert "with 10 node(s) exceeds" in error.message
    assert policy(tmp_path, hours).place(array({"count": 100}, pack=20))


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("MaxArraySize            = 10", None),
        ("MaxArraySize            = 9", "set it to 9 or less"),
        ("MaxArraySize            = 0", "set arrays.tasks = 0"),
    ],
)
def test_slurms_own_bound_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, remedy: str | None
) -> None:
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'Configuration data\n{said}\nMaxDBDMsgs = 20012'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    found, _ = findings(policy(tmp_path), None)

    told = [each.remedy for each in found if each.field == "arrays.elements"]
    assert told == ([remedy] if remedy else [])
