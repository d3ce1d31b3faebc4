"""JSON to the inputs of a work chain: the node that a port wants, or the port that is at fault."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.engine import WorkChain
from aiida.orm import (
    AbstractCode,
    Bool,
    Data,
    Dict,
    Float,
    InstalledCode,
    Int,
    List,
    SinglefileData,
    Str,
    load_code,
)

from aiida_byoc.workflows.ports import PortError, inputs_of_json, put

pytestmark = pytest.mark.usefixtures("computer")
CODES = ["byoc-in-job@cluster"]


class Ports(WorkChain):
    """A port of each kind."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input("integer", valid_type=Int)
        spec.input("number", valid_type=(Float, Int))
        spec.input("exact", valid_type=Float)
        spec.input("switch", valid_type=Bool)
        spec.input("text", valid_type=Str)
        spec.input("items", valid_type=List)
        spec.input("table", valid_type=Dict)
        spec.input("any", valid_type=Data)
        spec.input("file", valid_type=SinglefileData)
        spec.input("code", valid_type=AbstractCode)
        spec.input("plain", valid_type=dict, non_db=True)
        spec.input_namespace("names", dynamic=True, valid_type=(Int, Str))
        spec.input("deep.inner", valid_type=InstalledCode)


def nodes(**values: Any) -> dict[str, Any]:
    return inputs_of_json(Ports.spec().inputs, values, codes=CODES)


@pytest.mark.parametrize(
    ("port", "value", "kind", "content"),
    [
        ("integer", 3, Int, 3),
        ("integer", 3.0, Int, 3),
        ("number", 3, Int, 3),
        ("number", 0.5, Float, 0.5),
        ("exact", 3, Float, 3.0),
        ("switch", True, Bool, True),
        ("text", "a b", Str, "a b"),
        ("any", "a b", Str, "a b"),
        ("any", True, Bool, True),
    ],
)
def test_a_value_becomes_the_node_its_port_wants(
    port: str, value: Any, kind: type, content: Any
) -> None:
    node = nodes(**{port: value})[port]

    assert type(node) is kind
    assert node.value == content


def test_structures_files_and_codes() -> None:
    given = nodes(
        items=[1, "a"],
        table={"a": [1]},
        file={"filename": "in.txt", "text": "hello\n"},
        code=CODES[0],
        plain={"account": "x"},
        names={"a": 1, "b": "c"},
        deep={"inner": CODES[0]},
    )

    assert given["items"].get_list() == [1, "a"]
    assert given["table"].get_dict() == {"a": [1]}
    assert (given["file"].filename, given["file"].get_content()) == ("in.txt", "hello\n")
    assert given["code"].uuid == given["deep"]["inner"].uuid == load_code(CODES[0]).uuid
    assert given["plain"] == {"account": "x"}
    assert {name: node.value for name, node in given["names"].items()} == {"a": 1, "b": "c"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nothing": 1}, "there is no input nothing"),
        ({"integer": 0.5}, "the input integer does not take"),
        ({"integer": True}, "the input integer does not take"),
        ({"switch": 1}, "the input switch does not take"),
        ({"text": None}, "the input text does not take"),
        ({"file": {"filename": "a"}}, "the input file is a file"),
        ({"file": "/etc/passwd"}, "the input file does not take"),
        ({"code": "other@cluster"}, "the input code names a code"),
        ({"names": {"c": [1]}}, "the input names.c does not take"),
        ({"deep": 1}, "the input deep is a namespace"),
        ({"deep": {"inner": "x"}}, "the input deep.inner names a code"),
    ],
)
def test_a_value_that_does_not_fit_names_its_port(values: dict[str, Any], said: str) -> None:
    with pytest.raises(PortError, match=said):
        nodes(**values)


def test_defaults_give_way_and_the_nodes_word_wins() -> None:
    values: dict[str, Any] = {"a": {"b": {"mine": 1, "both": 1}}}

    put(values, "a.b", {"both": 2, "theirs": 2})
    put(values, "a.c", 3)
    put(values, "a.b", {"mine": 4}, wins=True)
    put(values, "a.c", 5)

    assert values == {"a": {"b": {"mine": 4, "both": 1, "theirs": 2}, "c": 3}}
