"""Receipts over HTTP: as the node signed them, of the job that was asked for, and of ended jobs alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent.keys import public_key
from aiida_byoc.contracts.receipt import Statement
from aiida_byoc.contracts.receipt.verification import read_envelope, signed, verified
from tests.eventually import eventually
from tests.service.node import PROBLEMS

EXAMPLES = Path(__file__).parents[2] / "docs" / "contracts" / "examples"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def receipt_of(**changes: str) -> dict[str, Any]:
    """A receipt as a node gives it; changes are the run's."""
    statement = json.loads((EXAMPLES / "receipt-statement.succeeded.v1.json").read_text())
    statement["predicate"] |= {"node_id": "n1", "job_id": "job-7", **changes}
    return signed(Statement.model_validate(statement), KEY).model_dump(mode="json")


@pytest.fixture
def ask(http: httpx.Client, keys: Any) -> Callable[..., httpx.Response]:
    """GET the receipt of job-7."""

    def ask(tenant: str = "acme", job: str = "job-7") -> httpx.Response:
        headers = {"Authorization": f"Bearer {keys.client(tenant)}"}
        return http.get(f"/v1/nodes/n1/jobs/{job}/receipt", headers=headers)

    return ask


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix(PROBLEMS)


def test_a_receipt_passes_unchanged(node, ask):
    """The adapter is not asked whether it likes it; what a client verifies is what the node signed."""
    sent = receipt_of()
    node.decide = lambda _: {"outcome": "answered", "receipt": sent}

    response = ask()

    assert (response.status_code, response.json()) == (200, sent)
    statement = verified(read_envelope(response.content), [public_key(KEY)])
    assert statement.predicate.job_id == "job-7"
    (command,) = node.received
    assert (command["operation"], command["tenant_id"], command["job_id"]) == (
        "receipt",
        "acme",
        "job-7",
    )
    assert "body" not in command


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("job-not-ended", 409),
        ("receipt-unavailable", 409),
        ("not-found", 404),
        ("node-failed", 503),
    ],
)
def test_what_the_node_refuses_is_the_clients_answer(name, status, node, ask):
    node.decide = lambda _: node.reject(name, status)

    response = ask()

    assert problem(response) == (status, name)
    assert response.json()["detail"] == "the node says no"


@pytest.mark.parametrize(
    "changes", [{"job_id": "job-8"}, {"tenant_id": "globex"}, {"node_id": "n2"}], ids=str
)
def test_a_receipt_of_something_else_is_no_answer(changes, node, ask):
    """Whoever signed it. The node hears so, and the client gets the right one at the next delivery."""
    answers = [receipt_of(**changes)]

    def decide(_: Any) -> dict[str, Any]:
        return {"outcome": "answered", "receipt": answers.pop() if answers else receipt_of()}

    node.decide = decide

    assert ask().json() == receipt_of()
    assert node.problems == ["validation-failed"]


def test_what_is_no_statement_is_no_answer(node, ask):
    sent = [{**receipt_of(), "payload": base64.b64encode(b"[]").decode()}]
    node.decide = lambda _: {"outcome": "answered", "receipt": sent.pop() if sent else receipt_of()}

    assert ask().json() == receipt_of()
    assert node.problems == ["validation-failed"]


def test_a_node_that_knows_no_receipts_is_not_asked(node, ask):
    node.operations = ["logs"]
    try:
        eventually(lambda: problem(ask()) == (409, "operation-unsupported"), "the node to be known")
    finally:
        node.knows("logs", "receipt")
