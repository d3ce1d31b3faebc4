"""Any CloudEvents library reads our events: here the CNCF's own, as one event and as a batch of the JSON format."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat

from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import changed, golden, golden_names

EVENTS = [name for name in golden_names() if name.startswith("execution-event.")]
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}


def parsed(event: object):
    return from_http(HTTPMessage(STRUCTURED, json.dumps(event).encode()), JSONFormat())


@pytest.mark.parametrize("name", EVENTS)
def test_the_sdk_reads_what_we_send(name):
    sent = validated(ExecutionEvent, golden(name)).wire()

    read = parsed(sent)

    assert (read.get_id(), read.get_source(), read.get_type(), read.get_subject()) == (
        sent["id"], sent["source"], sent["type"], sent["subject"],
    )  # fmt: skip
    assert read.get_specversion() == "1.0"
    assert read.get_time() == datetime.fromisoformat(sent["time"])
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data() == sent["data"]
    assert read.get_dataschema() is None


@pytest.mark.parametrize("name", EVENTS)
def test_we_read_what_the_sdk_writes(name):
    event = parsed(golden(name))

    again = json.loads(JSONFormat().write(event))

    assert validated(ExecutionEvent, again) == validated(ExecutionEvent, golden(name))


@pytest.mark.parametrize("path", ["source", "type"])
def test_the_sdk_misses_what_a_cloudevent_must_have(path):
    with pytest.raises(CloudEventValidationError):
        parsed(changed(golden("execution-event.running"), path, ...))


def test_no_attribute_of_ours_is_an_extension():
    known = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"}

    assert set(ExecutionEvent.model_fields) == known
