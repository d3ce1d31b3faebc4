"""One text for one meaning; a fingerprint that changes with the intent and with nothing else."""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_byoc.contracts.canonical import NOT_INTENT, canonical_json, fingerprint, strict_json
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import changed, golden

FULL = "submit-job-command.full"
MINIMAL = "submit-job-command.minimal"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
json_data = st.recursive(
    scalars,
    lambda items: (
        st.lists(items, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), items, max_size=4)
    ),
    max_leaves=20,
)


def shuffled(value: Any, random: Any) -> Any:
    """The same JSON data, its members in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, random)) for key, item in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


def intent_of(message: Any) -> str:
    return fingerprint("submit", validated(SubmitJobCommand, message))


@given(json_data)
def test_canonical_json_means_the_same_and_is_its_own_canonical_form(data):
    text = canonical_json(data)

    assert json.loads(text) == data
    assert canonical_json(strict_json(text)) == text


@given(json_data, st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(data, random):
    assert canonical_json(shuffled(data, random)) == canonical_json(data)


def test_members_are_sorted_by_utf16_as_rfc_8785_shows():
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]

    text = canonical_json(dict.fromkeys(names, 0)).decode()

    assert list(json.loads(text)) == [
        "\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {"\udfff": 1}]
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ValueError, match=r"canonical|exact"):
        canonical_json({"a": [value]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (5e-324, "5e-324"), (-1.7976931348623157e308, "-1.7976931348623157e+308"),
        (1.0, "1"), (0.5, "0.5"), (-12.25, "-12.25"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"), (1.5e-9, "1.5e-9"), (295147905179352830000.0, "295147905179352830000"),
        (999999999999999700000.0, "999999999999999700000"), (333333333.3333332, "333333333.3333332"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_rfc_8785_shows(value, text):
    """Its appendix B, among others."""
    assert canonical_json(value).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_back_as_it_was(value):
    assert float(canonical_json(value)) == value


def test_fingerprints_of_yesterday_stand():
    """They are in ledgers: a change of the algorithm would make every replay a conflict."""
    assert intent_of(golden(MINIMAL)) == (
        "6b9b39d4d8a17a061c94f16cd9fdd8cf9a176c9711be1320928e659e35099483"
    )
    assert intent_of(golden(FULL)) == (
        "46f0da2f02d4e3079af66cc82ceb7bc7f31afc0d7a9d25aeca00aba10d7270c2"
    )


@given(st.randoms(use_true_random=False), st.sampled_from([None, 1, 7]))
def test_spelling_is_no_intent(random, indent):
    text = json.dumps(shuffled(golden(FULL), random), indent=indent)

    assert intent_of(strict_json(text.encode())) == intent_of(golden(FULL))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("retry_policy", {}),
        ("retry_policy", {"max_attempts": 1, "on": []}),
        ("deadline", None),
        ("execution_profile.qos", None),
        ("execution_profile.account", None),
        ("resource_shape.nodes", 1),
        ("resource_shape.gpus", None),
        ("resource_shape.tasks_per_node", 1),
        ("resource_shape.scratch_mib", None),
        ("workload.env", {}),
        ("workload.inputs", []),
        ("workload.outputs", []),
        ("workload.network", "none"),
    ],
)
def test_a_default_written_out_is_the_same_as_none(path, value):
    assert intent_of(changed(golden(MINIMAL), path, value)) == intent_of(golden(MINIMAL))


def test_a_promise_is_meant_unless_it_says_otherwise():
    meant = changed(golden(FULL), "workload.outputs.0.required", True)

    assert intent_of(meant) == intent_of(golden(FULL))


def test_another_spelling_of_the_same_instant_is_the_same_intent():
    other = changed(golden(FULL), "deadline", "2026-03-01T19:30:00.000+01:30")

    assert intent_of(other) == intent_of(golden(FULL))


def test_the_trace_is_the_one_field_that_may_differ():
    assert set(NOT_INTENT) == {"traceparent"}
    other = f"00-{'1' * 32}-{'2' * 16}-00"
    for value in (..., None, other):
        assert intent_of(changed(golden(FULL), "traceparent", value)) == intent_of(golden(FULL))


OTHER_INTENTS = {
    "tenant_id": "rival",
    "workspace_id": "other",
    "job_id": "relax-0043",
    "management_node_id": "cluster-2",
    "execution_profile.queue_name": "long",
    "execution_profile.qos": "high",
    "execution_profile.account": "other",
    "resource_shape.cpu": 5,
    "resource_shape.memory_mib": 2049,
    "resource_shape.walltime_seconds": 3601,
    "resource_shape.gpus": 2,
    "resource_shape.nodes": 2,
    "resource_shape.tasks_per_node": 2,
    "resource_shape.scratch_mib": 1,
    "workload.image": "localhost/byoc/demo:2",
    "workload.argv": ["/bin/sh", "-c", "sort numbers.txt >  results/sorted.txt"],
    "workload.argv.0": "/bin/bash",
    "workload.env.LANG": "C",
    "workload.env.EXTRA": "",
    "workload.inputs.0.name": "other.txt",
    "workload.inputs.0.text": "3\n1\n2",
    "workload.outputs.0.name": "results/sorted",
    "workload.network": "host",
    "workload.checkpoint": {},
    "workload.outputs.0.required": False,
    "workload.outputs.0": {"glob": "results/sorted.txt"},
    "retry_policy.max_attempts": 3,
    "retry_policy.on": ["node_fail", "oom"],
    "deadline": "2026-03-01T18:00:00.001Z",
    "requested_by.user_id": "bob",
}

OTHER_INTENTS_OF_AN_ARRAY = {
    "workload.tasks.columns": ["temperature", "alloy"],
    "workload.tasks.rows": [["AlCu", "300"], ["AlCu", "600"], ["AlMg", "301"]],
    "workload.tasks.ids": ["a", "b", "c"],
    "workload.argv.0": "python",
    "workload.env.RUN_NAME": "{task_number}",
    "workload.concurrency": 63,
    "workload.pack": 2,
    "workload.task_seconds": 21,
}


def leaves(annotation: Any, prefix: str = "") -> set[str]:
    """Dotted names of every field of the command, lists entered at their first item."""
    if hasattr(annotation, "model_fields"):
        fields = annotation.model_fields.items()
        return {
            leaf for name, field in fields for leaf in leaves(field.annotation, f"{prefix}.{name}")
        }
    place = f"{prefix}.0" if get_origin(annotation) is list else prefix
    inner = {leaf for each in get_args(annotation) for leaf in leaves(each, place)} - {place}
    return inner or {prefix}


def test_every_field_of_the_command_is_tried():
    """A field added later must be put on one side or the other."""
    only_one_value = {"schema_version", "workload.kind"}
    below = {"workload.entry_point", "workload.inputs", "workload.outputs.0.glob"}
    below |= {f"workload.tasks.{name}" for name in ("count", "file.url", "file.sha256")}
    below |= {"workload.checkpoint.signal", "workload.checkpoint.seconds_before"}
    below |= {
        f"workload.inputs.0.{name}"
        for name in ("job.job_id", "job.output", "path", "url", "sha256")
    }
    tried = {
        path.partition("env.")[0] + "env" if "env." in path else path
        for path in (*OTHER_INTENTS, *OTHER_INTENTS_OF_AN_ARRAY)
    }

    fields = {leaf.removeprefix(".") for leaf in leaves(SubmitJobCommand)}
    assert fields - only_one_value - below - NOT_INTENT <= tried


@pytest.mark.parametrize(
    ("path", "value", "is_same"),
    [
        ("workload.entry_point", "core.arithmetic.add_multiply", False),
        ("workload.inputs.z", 4.25, False),
        ("workload.inputs.options.list", [True], False),
        ("workload.inputs.x", 2.0, True),
        ("workload.inputs.z", 45e-1, True),
    ],
)
def test_the_inputs_of_a_work_chain_are_intent(path, value, is_same):
    """Numbers count by their value, as RFC 8785 has it."""
    name = "submit-job-command.workchain"

    again = intent_of(changed(golden(name), path, value))

    assert (again == intent_of(golden(name))) == is_same


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("workload.outputs.1.glob", "metrics/*/[0-9]*.json"),
        ("workload.outputs.2.required", True),
        ("workload.outputs.2.required", ...),
    ],
)
def test_how_outputs_are_promised_is_intent(path, value):
    name = "submit-job-command.outputs"

    assert intent_of(changed(golden(name), path, value)) != intent_of(golden(name))


@pytest.mark.parametrize(
    ("path", "value", "is_same"),
    [
        ("workload.checkpoint.signal", "USR2", False),
        ("workload.checkpoint.seconds_before", 300, False),
        ("workload.checkpoint.seconds_before", ..., False),
        ("workload.checkpoint.signal", ..., True),
        ("workload.checkpoint", ..., False),
    ],
)
def test_how_a_program_is_warned_is_intent(path, value, is_same):
    name = "submit-job-command.checkpoint"

    again = intent_of(changed(golden(name), path, value))

    assert (again == intent_of(golden(name))) == is_same


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("workload.inputs.1.name", "start/other.bin"),
        ("workload.inputs.1.job.job_id", "train-0001"),
        ("workload.inputs.1.job.output", "checkpoints/first.bin"),
        ("workload.inputs.2.path", "/shared/datasets/images-2025"),
        ("workload.inputs.2.sha256", "0" * 64),
        ("workload.inputs.3.sha256", ...),
        ("workload.inputs.4.url", "https://data.example/vocabulary-1.5.txt"),
        ("workload.inputs.4.sha256", "0" * 64),
    ],
)
def test_where_inputs_come_from_is_intent(path, value):
    name = "submit-job-command.inputs"

    assert intent_of(changed(golden(name), path, value)) != intent_of(golden(name))


@pytest.mark.parametrize(("path", "value"), OTHER_INTENTS_OF_AN_ARRAY.items())
def test_every_field_of_an_array_is_intent(path, value):
    name = "submit-job-command.array"

    assert intent_of(changed(golden(name), path, value)) != intent_of(golden(name))


FILE = {"url": "https://data.example/t.json", "sha256": "0" * 64}


@pytest.mark.parametrize("other", [{"url": "https://data.example/u.json"}, {"sha256": "1" * 64}])
def test_where_the_tasks_are_is_intent(other):
    name = "submit-job-command.array"
    tasks = {"columns": ["alloy", "temperature"], "count": 3}

    def of_file(file):
        return changed(golden(name), "workload.tasks", {**tasks, "file": file})

    assert intent_of(of_file({**FILE, **other})) != intent_of(of_file(FILE))


@pytest.mark.parametrize("count", [2, 4])
def test_the_number_of_tasks_is_intent(count):
    name = "submit-job-command.array"

    def counted(tasks):
        command = changed(golden(name), "workload.tasks", {"count": tasks})
        return changed(command, "workload.argv", ["{task_id}"])

    assert intent_of(counted(count)) != intent_of(counted(3))


@pytest.mark.parametrize(("path", "value"), OTHER_INTENTS.items())
def test_any_other_change_is_another_intent(path, value):
    assert intent_of(changed(golden(FULL), path, value)) != intent_of(golden(FULL))


@pytest.mark.parametrize(
    "path",
    ["deadline", "retry_policy", "execution_profile.qos", "workload.env.LANG", "workload.outputs"],
)
def test_an_optional_field_left_out_is_another_intent(path):
    assert intent_of(changed(golden(FULL), path, ...)) != intent_of(golden(FULL))


def test_the_operation_belongs_to_the_intent():
    command = validated(SubmitJobCommand, golden(FULL))

    assert fingerprint("submit", command) != fingerprint("cancel", command)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40))
def test_no_two_arguments_share_a_fingerprint(argument):
    """No normalisation, no trimming: what differs by one code point differs."""
    one = intent_of(changed(golden(MINIMAL), "workload.argv", [argument]))

    assert one != intent_of(changed(golden(MINIMAL), "workload.argv", [argument + " "]))
    assert one != intent_of(changed(golden(MINIMAL), "workload.argv", [argument, ""]))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a": 1, "a": 2}', "appears twice"),
        (b'{"a": {"b": 1, "\\u0062": 1}}', "appears twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[" * 100_000, "too deeply"),
        (b'{"a":' * 100_000, "too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "too deeply"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
        (b"1" * 5000, "limit"),
    ],
)
def test_what_is_not_json_is_refused_with_a_sentence(body, says):
    with pytest.raises(ValueError, match=says):
        strict_json(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(body):
    try:
        data = strict_json(body)
    except ValueError:
        return
    assert json.dumps(data) is not None


@given(json_data)
def test_json_is_read_as_any_parser_reads_it(data):
    assert strict_json(json.dumps(data).encode()) == data
