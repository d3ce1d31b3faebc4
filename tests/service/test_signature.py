"""The product's signature travels to the nodes that know it, over what was signed, and to no others."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from aiida_byoc.contracts.signature import signing_input
from tests.service.enrolled import bearer
from tests.service.node import PROBLEMS, ScriptedNode

SIGNATURE = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ..c2lnbmF0dXJl"


@pytest.fixture
def signing(node) -> Iterator[ScriptedNode]:
    """The node, which knows signatures."""
    node.knows("logs", "receipt", "signatures")
    yield node
    node.knows("logs", "receipt")


def test_a_node_that_knows_signatures_gets_it_with_the_body_as_it_was_signed(
    signing, submit, command
):
    """Not a default more, so that the node can verify it byte for byte."""
    key = str(uuid4())
    command = {**command, "deadline": None, "workload": {**command["workload"], "argv": ["größer"]}}

    response = submit(command, key=key, headers={"Byoc-Signature": SIGNATURE})

    assert response.status_code == 202
    [received] = signing.received
    assert received["signature"] == SIGNATURE
    assert received["body"] == command
    protected = SIGNATURE.partition(".")[0]
    signed = signing_input(protected, received["operation"], key, received["body"])
    _, _, payload = signed.partition(b".")
    intent = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    assert intent == {"operation": "submit", "idempotency_key": key, "body": command}


def test_the_trace_of_the_header_does_not_touch_what_was_signed(signing, submit, command):
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"

    submit(command, headers={"Byoc-Signature": SIGNATURE, "traceparent": trace})

    assert signing.received[0]["body"] == command


def test_a_cancel_carries_one_too(signing, http, keys, command):
    body = {
        name: command[name]
        for name in ("schema_version", "tenant_id", "workspace_id", "job_id", "management_node_id")
    } | {"requested_by": {"user_id": "user-1"}}
    headers = bearer(keys.client("acme")) | {"Byoc-Signature": SIGNATURE}

    response = http.post(
        f"/v1/nodes/n1/jobs/{command['job_id']}/cancel", json=body, headers=headers
    )

    assert response.status_code == 202
    [received] = signing.received
    assert (received["signature"], received["body"]) == (SIGNATURE, body)


def test_a_node_that_does_not_know_signatures_gets_none(node, submit, command):
    assert submit(command, headers={"Byoc-Signature": SIGNATURE}).status_code == 202
    assert "signature" not in node.received[0]


def test_without_a_header_there_is_none(signing, submit, command):
    submit(command)

    assert "signature" not in signing.received[0]


MALFORMED = {
    "empty": "",
    "junk": "junk",
    "with its payload": "a.b.c",
    "no signature": "a..",
    "no header": "..c",
    "padding": "YQ==..YQ==",
    "a space": "a.. c",
    "two in one": f"{SIGNATURE}, {SIGNATURE}",
    "too long": f"{'a' * 513}..c",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_one_is_named_and_not_repeated(case, signing, submit, command):
    value = MALFORMED[case]

    response = submit(command, headers={"Byoc-Signature": value})

    assert (response.status_code, response.json()["type"]) == (422, PROBLEMS + "validation-failed")
    assert [error["field"] for error in response.json()["errors"]] == ["Byoc-Signature"]
    assert response.json()["errors"][0]["remedy"]
    assert not value or value not in response.text
    assert signing.received == []


def test_what_the_node_says_of_it_reaches_the_client(signing, submit, command):
    signing.decide = lambda _: signing.reject("signature-invalid", 403)

    response = submit(command, headers={"Byoc-Signature": SIGNATURE})

    assert (response.status_code, response.json()["type"]) == (403, PROBLEMS + "signature-invalid")
