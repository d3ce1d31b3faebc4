"""Every bad input gets its own problem that names field and remedy, repeats no value, and stops before the node."""

from __future__ import annotations

import copy
import json
import socket
from uuid import uuid4

import pytest

from tests.service.node import PROBLEMS

SECRET = "hunter2"


def put(path: str, value: object):
    """Change one field of the command, by dotted path."""

    def change(command):
        *parents, last = path.split(".")
        for part in parents:
            command = command[part]
        command[last] = value

    return change


def drop(field: str):
    return lambda command: command.pop(field)


BAD = {
    "unknown field": (put("colour", SECRET), 422, "validation-failed", "colour"),
    "unknown nested field": (
        put("workload.volume", SECRET),
        422,
        "validation-failed",
        "workload.volume",
    ),
    "missing field": (drop("job_id"), 422, "validation-failed", "job_id"),
    "wrong type": (
        put("resource_shape.cpu", "1"),
        422,
        "validation-failed",
        "resource_shape.cpu",
    ),
    "float for integer": (
        put("resource_shape.cpu", 1.5),
        422,
        "validation-failed",
        "resource_shape.cpu",
    ),
    "true for integer": (
        put("resource_shape.cpu", True),
        422,
        "validation-failed",
        "resource_shape.cpu",
    ),
    "zero": (
        put("resource_shape.memory_mib", 0),
        422,
        "validation-failed",
        "resource_shape.memory_mib",
    ),
    "version": (put("schema_version", "2"), 422, "validation-failed", "schema_version"),
    "control character": (
        put("workload.argv", ["true", f"{SECRET}\n#SBATCH"]),
        422,
        "validation-failed",
        "workload.argv.1",
    ),
    "line break after the image": (
        put("workload.image", "localhost/byoc/demo:1\n"),
        422,
        "validation-failed",
        "workload.image",
    ),
    "line break after the trace": (
        put("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01\n"),
        422,
        "validation-failed",
        "traceparent",
    ),
    "raw scheduler words": (
        put("execution_profile.queue_name", "main --exclusive"),
        422,
        "validation-failed",
        "execution_profile.queue_name",
    ),
    "environment of the loader": (
        put("workload.env", {"LD_PRELOAD": SECRET}),
        422,
        "validation-failed",
        "workload.env.LD_PRELOAD",
    ),
    "path that climbs": (
        put("workload.outputs", [{"name": "../x"}]),
        422,
        "validation-failed",
        "workload.outputs.0.name",
    ),
    "time without offset": (
        put("deadline", "2030-01-01T00:00:00"),
        422,
        "validation-failed",
        "deadline",
    ),
    "other tenant": (put("tenant_id", "globex"), 403, "tenant-mismatch", "tenant_id"),
    "other node": (
        put("management_node_id", "n2"),
        422,
        "node-mismatch",
        "management_node_id",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_field_at_fault_is_named_with_a_remedy(case, node, submit, command):
    change, status, name, field = BAD[case]
    change(command)

    response = submit(command)

    assert (response.status_code, response.json()["type"]) == (status, PROBLEMS + name)
    assert response.json()["retry"] is False
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert response.json()["errors"][0]["message"]
    assert SECRET not in response.text
    assert node.received == []


def test_all_faults_are_told_at_once(node, submit, command):
    put("colour", 1)(command)
    put("resource_shape.cpu", 0)(command)

    fields = {error["field"] for error in submit(command).json()["errors"]}

    assert fields == {"colour", "resource_shape.cpu"}


KEYS = {
    "absent": [],
    "empty": [""],
    "without quotes": [str(uuid4())],
    "too short": ['"short"'],
    "too long": ['"' + "x" * 129 + '"'],
    "foreign characters": ['"' + "ü" * 16 + '"'],
    "with parameters": ['"0123456789abcdef";a=1'],
    "twice": ['"0123456789abcdef"', '"0123456789abcdef"'],
}


@pytest.mark.parametrize("case", KEYS)
def test_the_key_must_be_one_quoted_string(case, node, http, keys, command):
    headers = [("Authorization", f"Bearer {keys.client('acme')}")]
    headers += [("Idempotency-Key", value.encode("latin-1")) for value in KEYS[case]]

    response = http.post("/v1/nodes/n1/jobs", json=command, headers=headers)

    assert response.status_code == 400
    assert response.json()["type"] == PROBLEMS + "idempotency-key-invalid"
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert response.json()["errors"][0]["remedy"]
    assert node.received == []


@pytest.fixture
def post(http, keys):
    """Post raw bytes as a submission, with a correct credential and key."""

    def post(content, content_type="application/json", **headers):
        sent = {
            "Authorization": f"Bearer {keys.client('acme')}",
            "Idempotency-Key": f'"{uuid4()}"',
            "Content-Type": content_type,
            **headers,
        }
        return http.post("/v1/nodes/n1/jobs", content=content, headers=sent)

    return post


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"a":1,"a":2}', b'{"cpu": NaN}', b"\x1f\x8b\x08\x00", b"[" * 9000],
)
def test_what_is_not_strict_json_is_malformed(body, node, post):
    response = post(body)

    assert (response.status_code, response.json()["type"]) == (400, PROBLEMS + "malformed-request")
    assert node.received == []


@pytest.mark.parametrize("depth", [150, 400, 700, 850, 900, 930, 960, 990])
def test_deep_nesting_is_refused_at_any_depth(depth, node, post):
    """The parser, the writer and the model each have a limit of their own; none may show as a 500."""
    response = post(b'{"workload":' + b"[" * depth + b"]" * depth + b"}")

    assert response.status_code in {400, 422}
    assert node.received == []


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"7"])
def test_what_is_not_an_object_does_not_fit(body, node, post):
    response = post(body)

    assert (response.status_code, response.json()["type"]) == (422, PROBLEMS + "validation-failed")
    assert node.received == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=latin-1", ""])
def test_another_media_type_is_refused(content_type, node, post, command):
    response = post(json.dumps(command), content_type)

    assert response.status_code == 415
    assert response.json()["errors"][0]["field"] == "Content-Type"
    assert node.received == []


def test_a_body_beyond_256_kib_is_refused_with_and_without_its_length(node, post, command):
    big = copy.deepcopy(command)
    big["workload"]["argv"] = ["x" * 30_000] * 9
    content = json.dumps(big).encode()
    assert len(content) > 256 * 1024

    declared = post(content)
    chunked = post(iter([content[:1000], content[1000:]]))

    for response in (declared, chunked):
        assert response.status_code == 413
        assert "262144 bytes" in response.json()["detail"]
    assert node.received == []


def test_a_body_of_just_256_kib_is_accepted(node, post, command):
    content = json.dumps(command).encode()

    response = post(content + b" " * (256 * 1024 - len(content)))

    assert response.status_code == 202


def test_a_length_that_lies_gets_nothing_through(node, adapter, keys, command):
    """Too short: the rest is no request. Too long: the body never completes and nobody is asked."""
    content = json.dumps(command).encode()
    for length in (len(content) - 10, len(content) + 10):
        head = (
            f"POST /v1/nodes/n1/jobs HTTP/1.1\r\nHost: adapter\r\nContent-Length: {length}\r\n"
            f"Authorization: Bearer {keys.client('acme')}\r\nContent-Type: application/json\r\n"
            f'Idempotency-Key: "{uuid4()}"\r\n\r\n'
        )
        with socket.create_connection(("127.0.0.1", adapter.port), timeout=10) as connection:
            connection.sendall(head.encode() + content)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert node.received == []


def test_checks_come_in_their_order(node, http, keys):
    """Credential, node, key, media type, size, JSON, model: the first that fails answers."""
    good = {"Authorization": f"Bearer {keys.client('acme')}"}
    key = {"Idempotency-Key": f'"{uuid4()}"'}
    kind = {"Content-Type": "application/json"}
    scopeless = {"Authorization": f"Bearer {keys.client('acme', scope='jobs:read')}"}
    big = b"x" * (256 * 1024 + 1)
    steps = [
        ("n9", {}, big, 401),
        ("n9", scopeless, big, 403),
        ("n9", good, big, 404),
        ("n1", good, big, 400),
        ("n1", {**good, **key}, big, 415),
        ("n1", {**good, **key, **kind}, big, 413),
        ("n1", {**good, **key, **kind}, b"x", 400),
        ("n1", {**good, **key, **kind}, b"{}", 422),
    ]
    for node_id, headers, content, status in steps:
        response = http.post(f"/v1/nodes/{node_id}/jobs", content=content, headers=headers)
        assert response.status_code == status, response.text
    assert node.received == []
