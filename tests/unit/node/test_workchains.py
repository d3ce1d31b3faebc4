"""Work chains in the policy: what an owner may write, and how inputs are held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.commands.placement import WorkchainPlacement
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import POLICY, submit

APPROVED = """
[workchains."lab.sum"]
codes = ["add@cluster"]
defaults = { "a.code" = "add@cluster" }
options = ["a.metadata.options"]

[workchains."lab.sum".inputs]
type = "object"
additionalProperties = false
required = ["x"]
properties.x = { type = "integer", minimum = 0 }
properties.b = { type = "object", additionalProperties = false, properties = { y = { enum = ["p", "q"] } } }
"""


def read(tmp_path: Path, text: str = POLICY + APPROVED) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return Policy.load(path)


def command(**inputs: Any) -> Any:
    return submit(workload={"kind": "workchain", "entry_point": "lab.sum", "inputs": inputs})


def test_an_approved_work_chain_is_placed(tmp_path: Path) -> None:
    placed = read(tmp_path).place(command(x=1, b={"y": "p"}))

    assert placed == WorkchainPlacement(
        partition="batch",
        codes=["add@cluster"],
        defaults={"a.code": "add@cluster"},
        options=["a.metadata.options"],
    )


@pytest.mark.parametrize(
    ("inputs", "field", "remedy"),
    [
        ({}, "workload.inputs.x", "add the input"),
        ({"x": "CANARY"}, "workload.inputs.x", "type: integer"),
        ({"x": -1}, "workload.inputs.x", "minimum: 0"),
        ({"x": 1, "CANARY": 2}, "workload.inputs", "use only: b, x"),
        ({"x": 1, "b": {"y": "CANARY"}}, "workload.inputs.b.y", "enum: ['p', 'q']"),
        ({"x": 1, "b": {"CANARY": 1}}, "workload.inputs.b", "use only: y"),
    ],
)
def test_what_the_schema_refuses_is_told_without_its_value(
    tmp_path: Path, inputs: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        read(tmp_path).place(command(**inputs))

    (error,) = caught.value.errors
    assert (error.field, error.remedy) == (field, remedy)
    assert "CANARY" not in str(caught.value.problem())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("additionalProperties = false\nrequired", "required", "additionalProperties"),
        ('type = "object"\nadd', 'type = "array"\nadd', "object"),
        ('type = "integer", minimum = 0', "minimum = true", "no JSON Schema"),
        ("a.metadata.options", "a metadata", "options"),
        ('"lab.sum"]\ncodes', '"os:system"]\ncodes', "os:system"),
    ],
)
def test_a_mistake_of_the_owner_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in APPROVED

    with pytest.raises(PolicyError, match=said):
        read(tmp_path, POLICY + APPROVED.replace(old, new))


def test_a_schema_cannot_make_the_node_fetch_anything(tmp_path: Path) -> None:
    text = APPROVED.replace('type = "integer", minimum = 0', '"$ref" = "http://127.0.0.1:1/schema"')

    with pytest.raises(PolicyError, match="outside"):
        read(tmp_path, POLICY + text)
