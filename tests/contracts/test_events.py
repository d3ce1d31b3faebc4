"""Events and projections: the proof of each state, an envelope that agrees with its data, room for what comes later."""

from __future__ import annotations

import json

import pytest

from aiida_byoc.contracts.delivery import Acknowledgement, Command, Heartbeat, PollRequest, Verdict
from aiida_byoc.contracts.events import ExecutionEvent, event_type
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.projection import ProjectionOutcome, ProjectionUpdate
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import changed, golden, refused

RESULT = {"exit_code": 0}
ERROR = {"code": "oom", "message": "Out of memory.", "retryable": True}


@pytest.mark.parametrize(
    ("state", "path", "value", "words"),
    [
        ("succeeded", "data.result", ..., "succeeded needs a result with exit_code 0"),
        ("succeeded", "data.result.exit_code", 1, "succeeded needs a result with exit_code 0"),
        ("succeeded", "data.error", ERROR, "succeeded needs a result with exit_code 0 and no error"),
        ("failed", "data.error", ..., "failed needs an error"),
        ("held", "data.reason", ..., "held needs a reason"),
    ],
)  # fmt: skip
def test_a_state_carries_its_proof(state, path, value, words):
    [error] = refused(
        ExecutionEvent, changed(golden(f"execution-event.{state}"), path, value)
    ).errors

    assert error.field == "data"
    assert error.message.startswith(words)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("subject", "another", "subject must equal data.job_id"),
        ("type", "org.aiida-byoc.execution.queued.v1", "type must name data.state"),
        ("time", "2026-03-01T12:00:05.001Z", "time must equal data.occurred_at"),
    ],
)
def test_the_envelope_agrees_with_its_data(path, value, words):
    [error] = refused(
        ExecutionEvent, changed(golden("execution-event.running"), path, value)
    ).errors

    assert (error.field, error.message) == ("(body)", words)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", ...),
        ("id", ""),
        ("id", "x" * 129),
        ("source", "/nodes/"),
        ("source", "https://nodes/cluster-1"),
        ("source", "/nodes/cluster-1\n"),
        ("type", "org.aiida-byoc.execution.running.v2"),
        ("subject", "a/b"),
        ("time", "2026-03-01T12:00:05"),
        ("time", 1772366400),
        ("datacontenttype", "text/plain"),
        ("data", ...),
        ("data.tenant_id", "a b"),
        ("data.workspace_id", ...),
        ("data.job_id", 7),
        ("data.submission_id", "5F0C4F0E-6F0A-4F57-9A53-0D3C8C2F7B11"),
        ("data.submission_id", "5f0c4f0e"),
        ("data.execution_id", ""),
        ("data.epoch", "3F9A1C5E7B2D4680"),
        ("data.epoch", ""),
        ("data.seq", 0),
        ("data.seq", "4"),
        ("data.seq", 4.0),
        ("data.seq", True),
        ("data.attempt", 0),
        ("data.state", "paused"),
        ("data.reason", "x" * 2001),
        ("data.occurred_at", "12:00"),
        ("data.trace_id", "0AF7651916CD43DD8448EB211C80319C"),
        ("data.image", {"reference": "a/b:1"}),
        ("data.image", {"reference": "a/b:1", "digest": "1"}),
        ("data.image", {"reference": "x" * 256, "digest": "sha256:" + "0" * 64}),
        ("data.scheduler.job_id", 4711),
        ("data.scheduler.nodes", ["n"] * 65),
        ("data.timings.queued", "yesterday"),
        ("data.result", {"exit_code": 256}),
        ("data.result", {"exit_code": -1}),
        ("data.result", {**RESULT, "image_digest": "sha512:" + "0" * 128}),
        ("data.result", {**RESULT, "outputs": [{"name": "a", "size": -1, "sha256": "0" * 64}]}),
        ("data.result", {**RESULT, "outputs": [{"name": "a", "size": 1, "sha256": "0" * 63}]}),
        (
            "data.result",
            {**RESULT, "outputs": [{"name": "a", "size": 1, "sha256": "0" * 64, "location": "x"}]},
        ),
        ("data.result", {**RESULT, "outputs_omitted": 0}),
        ("data.result", {**RESULT, "usage": {"cpu_seconds": -0.1}}),
        ("data.error", {**ERROR, "code": "Out of memory"}),
        ("data.error", {**ERROR, "retryable": "yes"}),
    ],
)
def test_a_field_of_another_form_is_refused_by_name(path, value):
    errors = refused(ExecutionEvent, changed(golden("execution-event.running"), path, value)).errors

    assert len(errors) == 1
    assert errors[0].field == path or errors[0].field.startswith(f"{path}.")


@pytest.mark.parametrize(
    "path", ["later", "data.later", "data.scheduler.later", "data.timings.later"]
)
def test_an_optional_field_of_a_later_minor_version_is_ignored(path):
    event = golden("execution-event.running")
    known = validated(ExecutionEvent, golden("execution-event.running"))

    assert validated(ExecutionEvent, changed(event, path, {"any": "thing"})) == known


@pytest.mark.parametrize("state", ExecutionState)
def test_the_type_names_the_state(state):
    assert golden(f"execution-event.{state}")["type"] == event_type(state)


def test_absent_fields_stay_absent_on_the_wire():
    event = validated(ExecutionEvent, golden("execution-event.accepted"))

    assert event.wire() == golden("execution-event.accepted")
    assert "result" not in event.wire()["data"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("projection_id", "5f0c4f0e-6f0a-4f57-9a53-0d3c8c2f7b11"),
        ("projection_id", "5f0c4f0e-6f0a-4f57-9a53-0d3c8c2f7b11:0"),
        ("projection_id", "relax-0042:4"),
        ("schema_version", "2"),
        ("epoch", "3f9a1c5e7b2d468"),
        ("seq", 0),
        ("state", "held"),
        ("execution_state", "attention"),
        ("node_id", "a/b"),
        ("trace_id", "x" * 32),
        ("occurred_at", 0),
    ],
)
def test_a_projection_of_another_form_is_refused_by_name(path, value):
    problem = refused(ProjectionUpdate, changed(golden("projection-update.running"), path, value))

    assert [error.field for error in problem.errors] == [path]


@pytest.mark.parametrize("outcome", ["accepted", "", None])
def test_the_product_answers_one_of_four_words(outcome):
    message = changed(golden("projection-outcome.applied"), "outcome", outcome)

    assert [error.field for error in refused(ProjectionOutcome, message).errors] == ["outcome"]


@pytest.mark.parametrize(
    ("model", "name", "path", "value"),
    [
        (PollRequest, "poll-request", "wait_seconds", 31),
        (PollRequest, "poll-request", "wait_seconds", -1),
        (PollRequest, "poll-request", "max_commands", 0),
        (PollRequest, "poll-request", "max_commands", 101),
        (PollRequest, "poll-request", "surprise", 1),
        (Heartbeat, "heartbeat", "sent_at", "now"),
        (Heartbeat, "heartbeat", "versions", ...),
        (Heartbeat, "heartbeat", "jobs_active", -1),
        (Heartbeat, "heartbeat", "draining", "no"),
        (Heartbeat, "heartbeat", "surprise", 1),
        (Heartbeat, "heartbeat.full", "epoch", "x" * 16),
        (Heartbeat, "heartbeat.full", "jobs_quarantined", -1),
        (Heartbeat, "heartbeat.full", "repairs.ended", -1),
        (ProjectionOutcome, "projection-outcome.missing", "missing_from", 0),
        (Verdict, "verdict.accepted", "outcome", "maybe"),
        (Verdict, "verdict.accepted", "surprise", 1),
        (Acknowledgement, "acknowledgement", "next_seq", ...),
        (Acknowledgement, "acknowledgement", "next_seq", [1]),
        (Acknowledgement, "acknowledgement.missing", "missing_from", [1]),
    ],
)
def test_what_travels_beside_events_is_held_to_its_form(model, name, path, value):
    errors = refused(model, changed(golden(name), path, value)).errors

    assert [error.field for error in errors] == [path]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("command_id", "1"),
        ("operation", "delete"),
        ("tenant_id", ...),
        ("idempotency_key", "short"),
        ("idempotency_key", "x" * 129),
        ("idempotency_key", "0123456789abcdef\n"),
        ("surprise", 1),
    ],
)
def test_a_command_on_its_way_is_closed(path, value):
    [command] = golden("command-batch.submit")["commands"]

    assert [error.field for error in refused(Command, changed(command, path, value)).errors] == [
        path
    ]


def test_a_message_cannot_be_changed_once_read():
    event = validated(ExecutionEvent, golden("execution-event.running"))

    with pytest.raises(ValueError, match="frozen"):
        event.data.seq = 5


def test_the_largest_event_fits_where_it_has_to_go():
    """The product takes no more than 64 Ki characters; the limits of the fields see to it."""
    largest = golden("execution-event.succeeded")
    output = {"name": "n" * 512, "size": 2**53 - 1, "sha256": "f" * 64, "location": "repository"}
    largest["data"] |= {
        "reason": "r" * 2000,
        "scheduler": {
            "job_id": "1" * 64,
            "name": "n" * 128,
            "queue": "q" * 128,
            "nodes": ["n" * 256] * 64,
            "wait_reason": "w" * 256,
        },
    }
    largest["data"]["result"] |= {"outputs": [output] * 64, "outputs_omitted": 10_000}
    largest["data"]["progress"] = {
        "fraction": 1 / 3,
        "step": 2**53 - 1,
        "steps": 2**53 - 1,
        "message": "m" * 500,
        "metrics": {f"{index:02}{'k' * 62}": -1.7976931348623157e308 for index in range(16)},
        "reported_at": "2026-03-01T12:00:11.000Z",
    }

    event = validated(ExecutionEvent, largest)

    assert len(json.dumps(event.wire(), ensure_ascii=False)) < 64 * 1024
