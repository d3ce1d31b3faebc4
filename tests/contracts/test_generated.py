"""What is generated from the contracts is what they say now; and a document that is generated is a valid one."""

from __future__ import annotations

import json

import pytest

from aiida_byoc.contracts.asyncapi import asyncapi_text
from aiida_byoc.contracts.events import event_type
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.typescript import FILES, main
from tests.contracts.messages import ROOT

TYPESCRIPT = "run `.venv/bin/python -m aiida_byoc.contracts.typescript convex`"
ASYNCAPI = "run `.venv/bin/python -m aiida_byoc.contracts.asyncapi > docs/asyncapi.json`"


@pytest.mark.parametrize("name", FILES)
def test_the_typescript_is_current(name):
    current = (ROOT / "convex" / name).read_text() == FILES[name]()

    assert current, f"convex/{name} is not what the contracts say: {TYPESCRIPT}"


def test_the_command_writes_what_is_compared(tmp_path):
    main(tmp_path)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: text() for name, text in FILES.items()
    }


def test_the_asyncapi_document_is_current():
    """tests/convex/contracts.test.ts holds it against the specification's own schema."""
    current = (ROOT / "docs" / "asyncapi.json").read_text() == asyncapi_text()

    assert current, f"docs/asyncapi.json is not what the contracts say: {ASYNCAPI}"


def test_the_asyncapi_document_has_a_message_for_every_state():
    document = json.loads(asyncapi_text())
    choices = document["components"]["messages"]["batch"]["payload"]["items"]["oneOf"]
    schemas = [document["components"]["schemas"][one["$ref"].rpartition("/")[2]] for one in choices]

    told = [schema["allOf"][1]["properties"]["type"]["const"] for schema in schemas]

    assert told == [event_type(state) for state in ExecutionState]
