"""Each kind of bad input has its own problem, names field and remedy, and writes nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

Change = Callable[[dict[str, Any]], object]

Bad = tuple[str, Change, int, str, str]

FIELDS: list[Bad] = [
    ("an unknown field", lambda c: c.update(surprise=1), 422, "validation-failed", "surprise"),
    ("a missing field", lambda c: c.pop("workspace_id"), 422, "validation-failed", "workspace_id"),
    (
        "a wrong type",
        lambda c: c["resource_shape"].update(cpu="1"),
        422,
        "validation-failed",
        "resource_shape.cpu",
    ),
    (
        "a control character",
        lambda c: c["workload"].update(argv=["a\u0007"]),
        422,
        "validation-failed",
        "workload.argv.0",
    ),
    (
        "a newline in an argument",
        lambda c: c["workload"].update(argv=["a\nb"]),
        422,
        "validation-failed",
        "workload.argv.0",
    ),
    (
        "a path that climbs",
        lambda c: c["workload"].update(outputs=[{"name": "../x"}]),
        422,
        "validation-failed",
        "workload.outputs.0.name",
    ),
    (
        "a reserved variable",
        lambda c: c["workload"].update(env={"LD_PRELOAD": "x"}),
        422,
        "validation-failed",
        "workload.env.LD_PRELOAD",
    ),
    (
        "a tag the policy does not know",
        lambda c: c["workload"].update(image="localhost/byoc/demo:nope"),
        422,
        "image-not-allowed",
        "workload.image",
    ),
    (
        "a repository nobody approved",
        lambda c: c["workload"].update(image="docker.io/library/busybox:latest"),
        422,
        "image-not-allowed",
        "workload.image",
    ),
    (
        "too much memory",
        lambda c: c["resource_shape"].update(memory_mib=10**6),
        422,
        "policy-refused",
        "resource_shape.memory_mib",
    ),
    (
        "too many processors",
        lambda c: c["resource_shape"].update(cpu=1000),
        422,
        "policy-refused",
        "resource_shape.cpu",
    ),
    (
        "a queue that is none",
        lambda c: c["execution_profile"].update(queue_name="nope"),
        422,
        "policy-refused",
        "execution_profile.queue_name",
    ),
    (
        "a raw Slurm word",
        lambda c: c["execution_profile"].update(queue_name="a\n#SBATCH -x"),
        422,
        "validation-failed",
        "execution_profile.queue_name",
    ),
]


@pytest.mark.parametrize("bad", FIELDS, ids=[row[0] for row in FIELDS])
def test_a_bad_field_is_named(acme: Any, rows: Any, bad: Bad) -> None:
    """The problem names the field and what to do about it."""
    _, change, status, kind, field = bad
    command = acme.command("true")
    change(command)
    before = rows()

    response = acme.submit(command)

    problem = response.json()
    assert response.headers["Content-Type"].startswith("application/problem+json")
    assert (response.status_code, problem["type"].rpartition("/")[2]) == (status, kind)
    assert field in [error["field"] for error in problem["errors"]]
    assert rows() == before


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "missing"),
        ({"Idempotency-Key": "unquoted-0123456789abcdef"}, "no quotes"),
        ({"Idempotency-Key": '"short"'}, "too short"),
        ({"Idempotency-Key": '"' + "x" * 129 + '"'}, "too long"),
        ({"Idempotency-Key": '"0123456789abcdef";a=1'}, "parameters"),
        ({"Idempotency-Key": '"0123456789 abcdef"'}, "a character outside the set"),
    ],
)
def test_a_bad_key_is_its_own_problem(
    acme: Any, rows: Any, headers: dict[str, str], why: str
) -> None:
    """The remedy says how the header looks."""
    before = rows()

    response = acme.http.post(acme.jobs, json=acme.command("true"), headers=headers)

    assert response.status_code == 400, why
    assert response.json()["type"].endswith("/idempotency-key-invalid")
    assert rows() == before


def test_a_foreign_tenant_is_refused(acme: Any, globex: Any, rows: Any) -> None:
    """The tenant of the credential decides, not the body."""
    before = rows()

    response = acme.submit(globex.command("true"))

    assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (
        403,
        "tenant-mismatch",
    )
    assert rows() == before


def test_a_foreign_node_is_refused(acme: Any, rows: Any) -> None:
    """Body and path must agree; a node that is nobody's does not exist."""
    before = rows()

    mismatch = acme.submit(acme.command("true", management_node_id="another"))
    unknown = acme.http.post(
        "/v1/nodes/another/jobs",
        json=acme.command("true", management_node_id="another"),
        headers={"Idempotency-Key": f'"{uuid.uuid4()}"'},
    )

    assert mismatch.json()["type"].endswith("/node-mismatch")
    assert (unknown.status_code, unknown.json()["type"].rpartition("/")[2]) == (404, "not-found")
    assert rows() == before


def test_a_past_deadline_is_refused(acme: Any, rows: Any) -> None:
    """Before anything is written."""
    before = rows()

    response = acme.submit(acme.command("true", deadline="2020-01-01T00:00:00Z"))

    assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (
        410,
        "command-expired",
    )
    assert rows() == before


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind"),
    [
        (b"{", "application/json", 400, "malformed-request"),
        (b'{"a":1,"a":2}', "application/json", 400, "malformed-request"),
        (b"[" * 100_000, "application/json", 400, "malformed-request"),
        (b"\xff\xfe", "application/json", 400, "malformed-request"),
        (b"[]", "application/json", 422, "validation-failed"),
        (b'"' + b"x" * 300_000 + b'"', "application/json", 413, "payload-too-large"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
    ],
)
def test_a_bad_body_is_its_own_problem(
    acme: Any, body: bytes, content_type: str, status: int, kind: str
) -> None:
    """Junk, duplicates, depth, size, type."""
    response = acme.http.post(
        acme.jobs,
        content=body,
        headers={"Idempotency-Key": f'"{uuid.uuid4()}"', "Content-Type": content_type},
    )

    assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (status, kind)


def test_tenants_do_not_see_each_other(acme: Any, globex: Any) -> None:
    """A job of another tenant is answered exactly like one that never was, by adapter and product alike."""
    command = acme.command("true")
    acme.submit(command)
    acme.wait(command["job_id"])

    foreign = globex.http.get(f"{globex.jobs}/{command['job_id']}")
    unknown = globex.http.get(f"{globex.jobs}/never-was")
    listed = globex.query("jobs:list", paginationOpts={"numItems": 100, "cursor": None})["page"]

    assert foreign.status_code == unknown.status_code == 404
    assert {**foreign.json(), "instance": None} == {**unknown.json(), "instance": None}
    assert globex.projection(command["job_id"]) == {}
    assert command["job_id"] not in json.dumps(listed)


def test_both_tenants_may_use_the_same_names(acme: Any, globex: Any) -> None:
    """Job ids and keys are each tenant's own."""
    key = str(uuid.uuid4())
    command = acme.command("true")

    first = acme.submit(command, key)
    second = globex.submit(globex.command("true", job_id=command["job_id"]), key)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["submission_id"] != second.json()["submission_id"]
    acme.wait(command["job_id"])
    globex.wait(command["job_id"])
