"""Bad orders: each is refused, the field at fault is named, and what was sent is not repeated."""

from __future__ import annotations

import pytest

from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import changed, golden, refused

CANARY = "CANARY"
TIME = "must be an RFC 3339 time"

BAD_FIELDS = [
    # (path to set, value, field that must be named, words of the message)
    ("surprise", CANARY, "surprise", "not permitted"),
    ("resource_shape.surprise", CANARY, "resource_shape.surprise", "not permitted"),
    ("workload.inputs.0.surprise", CANARY, "workload.inputs.0.surprise", "not permitted"),
    ("schema_version", "2", "schema_version", "'1'"),
    ("schema_version", 1, "schema_version", "'1'"),
    ("tenant_id", ..., "tenant_id", "required"),
    ("workload.image", ..., "workload.image", "required"),
    ("tenant_id", None, "tenant_id", "string"),
    ("tenant_id", 7, "tenant_id", "string"),
    ("tenant_id", "", "tenant_id", "match"),
    ("tenant_id", "-" + CANARY, "tenant_id", "match"),
    ("tenant_id", CANARY + "\n", "tenant_id", "match"),
    ("tenant_id", "a" * 65, "tenant_id", "match"),
    ("job_id", CANARY + "/..", "job_id", "match"),
    ("execution_profile.queue_name", CANARY + " --uid=0", "execution_profile.queue_name", "match"),
    ("execution_profile.qos", "", "execution_profile.qos", "match"),
    ("execution_profile", [], "execution_profile", "object"),
    ("resource_shape.cpu", "1", "resource_shape.cpu", "integer"),
    ("resource_shape.cpu", 1.0, "resource_shape.cpu", "integer"),
    ("resource_shape.cpu", True, "resource_shape.cpu", "integer"),
    ("resource_shape.cpu", None, "resource_shape.cpu", "integer"),
    ("resource_shape.cpu", 0, "resource_shape.cpu", "greater than or equal to 1"),
    ("resource_shape.cpu", -1, "resource_shape.cpu", "greater than or equal to 1"),
    ("resource_shape.cpu", 10**30, "resource_shape.cpu", "less than or equal to"),
    ("resource_shape.memory_mib", 2**24 + 1, "resource_shape.memory_mib", "less than or equal"),
    ("resource_shape.walltime_seconds", 0, "resource_shape.walltime_seconds", "greater than"),
    ("resource_shape.gpus", 0, "resource_shape.gpus", "greater than or equal to 1"),
    ("resource_shape.nodes", 10_001, "resource_shape.nodes", "less than or equal to"),
    ("resource_shape.tasks_per_node", 0, "resource_shape.tasks_per_node", "greater than or equal"),
    ("resource_shape.tasks_per_node", 3, "resource_shape.tasks_per_node", "must divide cpu"),
    ("resource_shape.tasks_per_node", 8, "resource_shape.tasks_per_node", "must divide cpu"),
    ("resource_shape.scratch_mib", 0, "resource_shape.scratch_mib", "greater than or equal to 1"),
    ("resource_shape.scratch_mib", 2**30 + 1, "resource_shape.scratch_mib", "less than or equal"),
    ("workload.kind", CANARY, "workload.kind", "'container'"),
    ("workload.argv", [], "workload.argv", "at least 1"),
    ("workload.argv", ["x"] * 257, "workload.argv", "at most 256"),
    ("workload.argv", CANARY, "workload.argv", "array"),
    ("workload.argv.1", 1, "workload.argv.1", "string"),
    ("workload.argv.1", "x" * (32 * 1024 + 1), "workload.argv.1", "at most 32768 characters"),
    ("workload.env", [], "workload.env", "object"),
    ("workload.env", {f"A{n}": "" for n in range(257)}, "workload.env", "at most 256"),
    ("workload.env.lower", CANARY, "workload.env.lower", "match"),
    ("workload.env.1A", CANARY, "workload.env.1A", "match"),
    ("workload.env.A=B", CANARY, "workload.env.A=B", "match"),
    ("workload.env.A", 1, "workload.env.A", "string"),
    ("workload.env.A", "x" * (32 * 1024 + 1), "workload.env.A", "at most 32768 characters"),
    ("workload.inputs.0.text", "x" * (128 * 1024 + 1), "workload.inputs.0.text", "at most 131072"),
    ("workload.inputs.0.text", None, "workload.inputs.0.text", "string"),
    ("workload.inputs", [{"name": CANARY, "text": ""}] * 2, "workload", "same file twice"),
    ("workload.inputs", [{"name": f"f{n}", "text": ""} for n in range(257)], "workload.inputs", "256"),
    ("workload.outputs", [{"name": CANARY}] * 2, "workload", "outputs must not name the same"),
    ("workload.outputs", [{"name": "a"}, {"name": "a/b"}], "workload", "both a file and a directory"),
    ("workload.outputs", [{"name": f"f{n}"} for n in range(65)], "workload.outputs", "at most 64"),
    ("workload.inputs.0", {"name": CANARY}, "workload.inputs.0", "exactly one of text, job, path or url"),
    ("workload.inputs.0", {"name": "a", "text": "", "path": "/a/b"}, "workload.inputs.0", "exactly one of"),
    ("workload.inputs.0", {"name": "a", "text": "", "path": None}, "workload.inputs.0", "exactly one of"),
    ("workload.inputs.0", {"name": "a", "text": "", "sha256": "0" * 64}, "workload.inputs.0.sha256", "not permitted"),
    ("workload.inputs.0", {"name": "a", "path": None}, "workload.inputs.0.path", "string"),
    ("workload.inputs.0", {"name": "a", "path": "/a/b", "sha256": CANARY}, "workload.inputs.0.sha256", "match"),
    ("workload.inputs.0", {"name": "a", "url": "https://a/"}, "workload.inputs.0.sha256", "required"),
    ("workload.inputs.0", {"name": "a", "job": CANARY}, "workload.inputs.0.job", "object"),
    ("workload.inputs.0", {"name": "a", "job": {"job_id": "a"}}, "workload.inputs.0.job.output", "required"),
    ("workload.inputs.0", {"name": "a", "job": {"job_id": "", "output": "c"}}, "workload.inputs.0.job.job_id", "m"),
    ("workload.inputs.0", {"name": "a", "job": {"job_id": "a", "output": "*"}}, "workload.inputs.0.job.output", "not"),
    ("workload.inputs.0", CANARY, "workload.inputs.0", "object"),
    ("workload.inputs.0", {"name": "results", "path": "/a/b"}, "workload", "'results' is an input"),
    ("workload.inputs.0", {"name": "results/sorted.txt", "path": "/a/b"}, "workload", "is an input, which the"),
    ("workload.outputs.0", {}, "workload.outputs.0", "exactly one of name or glob"),
    ("workload.outputs.0", {"name": CANARY, "glob": "*"}, "workload.outputs.0", "exactly one of name or glob"),
    ("workload.outputs.0", {"name": CANARY, "glob": None}, "workload.outputs.0", "exactly one of name or glob"),
    ("workload.outputs.0", CANARY, "workload.outputs.0", "object"),
    ("workload.outputs.0.required", 1, "workload.outputs.0.required", "boolean"),
    ("workload.outputs.0", {"glob": ""}, "workload.outputs.0.glob", "at least 1"),
    ("workload.outputs.0", {"glob": "*", "surprise": 1}, "workload.outputs.0.surprise", "not permitted"),
    ("workload.checkpoint", {"signal": "KILL"}, "workload.checkpoint.signal", "'USR1'"),
    ("workload.checkpoint", {"seconds_before": 0}, "workload.checkpoint.seconds_before", "greater than"),
    ("workload.checkpoint", {"seconds_before": 3600}, "workload", "less than resource_shape.walltime_seconds"),
    ("workload.checkpoint", {"at": 1}, "workload.checkpoint.at", "Extra inputs"),
    ("retry_policy.max_attempts", 0, "retry_policy.max_attempts", "greater than or equal to 1"),
    ("retry_policy.max_attempts", 11, "retry_policy.max_attempts", "less than or equal to 10"),
    ("retry_policy.on", [CANARY], "retry_policy.on.0", "'oom'"),
    ("deadline", 1_772_366_400, "deadline", TIME),
    ("deadline", "1772366400", "deadline", TIME),
    ("deadline", "2026-03-01", "deadline", TIME),
    ("deadline", "2026-03-01T18:00:00", "deadline", TIME),
    ("deadline", "2026-03-01 18:00:00Z", "deadline", TIME),
    ("deadline", "2026-03-01T18:00:00z", "deadline", TIME),
    ("deadline", "2026-03-01T18:00:00+0100", "deadline", TIME),
    ("deadline", "20260301T180000Z", "deadline", TIME),
    ("deadline", "2026-03-01T18:00:00Z\n", "deadline", "valid datetime"),
    ("deadline", "2026-02-30T18:00:00Z", "deadline", "valid datetime"),
    ("deadline", "0001-01-01T00:00:00+14:00", "deadline", "years 1 to 9999"),
    ("deadline", "9999-12-31T23:59:59-14:00", "deadline", "years 1 to 9999"),
    ("requested_by", CANARY, "requested_by", "object"),
    ("requested_by.user_id", "", "requested_by.user_id", "at least 1 character"),
    ("requested_by.user_id", "x" * 129, "requested_by.user_id", "at most 128 characters"),
    ("traceparent", CANARY, "traceparent", "W3C traceparent"),
    ("traceparent", f"01-{'1' * 32}-{'1' * 16}-01", "traceparent", "W3C traceparent"),
    ("traceparent", f"00-{'0' * 32}-{'1' * 16}-01", "traceparent", "not all zero"),
    ("traceparent", f"00-{'1' * 32}-{'0' * 16}-01", "traceparent", "not all zero"),
    ("traceparent", f"00-{'A' * 32}-{'1' * 16}-01", "traceparent", "W3C traceparent"),
    ("traceparent", f"00-{'1' * 32}-{'1' * 16}-01\n", "traceparent", "W3C traceparent"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "field", "words"), BAD_FIELDS)
def test_the_field_at_fault_is_named_and_its_value_is_not_repeated(path, value, field, words):
    problem = refused(SubmitJobCommand, changed(golden("submit-job-command.full"), path, value))

    [error] = problem.errors
    assert error.field == field
    assert words in error.message
    assert field in problem.detail
    assert CANARY not in str(problem.problem().model_dump()).replace(field, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"tenant_id": "\\ud800"}', "tenant_id"),
        (b'{"workload": {"argv": ["a", "\\udfff"]}}', "workload.argv.1"),
        (b'{"\\ud800": 1}', "?"),
        (b'{"resource_shape": {"cpu": 1e999}}', "resource_shape.cpu"),
        (b'{"resource_shape": {"cpu": -1e999}}', "resource_shape.cpu"),
    ],
)
def test_what_python_reads_and_json_cannot_write_is_named(body, field):
    problem = refused(SubmitJobCommand, strict_json(body))

    assert [error.field for error in problem.errors] == [field]


@pytest.mark.parametrize("depth", [150, 250, 600, *range(900, 1000, 7)])
def test_depth_is_refused_at_every_depth(depth):
    body = b'{"deadline":' * depth + b"[]" + b"}" * depth
    try:
        data = strict_json(body)
    except ValueError:
        return
    refused(SubmitJobCommand, data)


def test_data_too_deep_to_be_written_are_refused_as_a_whole():
    data: list = []
    for _ in range(100_000):
        data = [data]

    assert [error.field for error in refused(SubmitJobCommand, data).errors] == ["(body)"]


@pytest.mark.parametrize("data", [None, [], "x", 1, True])
def test_a_body_that_is_no_object_is_refused_as_a_whole(data):
    assert [error.field for error in refused(SubmitJobCommand, data).errors] == ["(body)"]


def test_every_field_at_fault_is_named_but_not_without_end():
    message = changed(golden("submit-job-command.full"), "tenant_id", 1)
    message = changed(message, "resource_shape.cpu", 0)
    assert [error.field for error in refused(SubmitJobCommand, message).errors] == [
        "tenant_id",
        "resource_shape.cpu",
    ]

    flood = {f"x{number}": 1 for number in range(1000)}
    assert len(refused(SubmitJobCommand, flood).errors) == 50


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("surprise", 1, "surprise"),
        ("job_id", ..., "job_id"),
        ("reason", "", "reason"),
        ("reason", "x" * 501, "reason"),
        ("requested_by", ..., "requested_by"),
        ("schema_version", 1, "schema_version"),
    ],
)
def test_a_cancellation_is_held_to_the_same(path, value, field):
    problem = refused(CancelJobCommand, changed(golden("cancel-job-command.full"), path, value))

    assert [error.field for error in problem.errors] == [field]


def test_a_command_cannot_be_changed_once_read():
    command = validated(SubmitJobCommand, golden("submit-job-command.full"))

    with pytest.raises(ValueError, match="frozen"):
        command.tenant_id = "rival"
