"""Golden messages are read for ever: what was valid once stays valid, and comes out as it went in."""

from __future__ import annotations

import jsonschema
import pytest

from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.delivery import PollRequest
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.logs import LogRequest
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import MODELS, golden, golden_names

_RECEIVED = {SubmitJobCommand, CancelJobCommand, LogRequest, PollRequest}
SENT_BY_US = sorted(
    name for name in golden_names() if MODELS[name.partition(".")[0]] not in _RECEIVED
)


def test_every_surface_has_a_golden_message():
    assert {name.partition(".")[0] for name in golden_names()} == set(MODELS)


@pytest.mark.parametrize("surface", ["execution-event", "projection-update"])
def test_every_state_has_a_golden_message(surface):
    states = {name.split(".")[1] for name in golden_names() if name.startswith(f"{surface}.")}

    assert states == {state.value for state in ExecutionState}


@pytest.mark.parametrize("name", golden_names())
def test_a_golden_message_is_valid_and_survives_a_round_trip(name):
    model = MODELS[name.partition(".")[0]]

    message = validated(model, golden(name))
    again = validated(model, message.model_dump(mode="json", exclude_none=True))

    assert again == message
    jsonschema.validate(golden(name), model.model_json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", SENT_BY_US)
def test_what_our_parts_send_is_written_as_the_golden_message(name):
    message = validated(MODELS[name.partition(".")[0]], golden(name))

    assert message.model_dump(mode="json", exclude_none=True) == golden(name)
