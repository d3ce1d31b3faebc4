"""What the product signed is carried out; what nobody, or somebody else, signed is not."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest

from aiida_byoc.agent.channel import decide
from aiida_byoc.contracts.delivery import Command
from aiida_byoc.contracts.signature import signing_input
from aiida_byoc.node import NodeSettings
from tests.node_registry import product_key, public_members
from tests.postgres.envelopes import envelope, problem_of
from tests.postgres.reading import nothing_written


@pytest.fixture
def product(settings: NodeSettings, tmp_path: Path) -> tuple[NodeSettings, Any]:
    """The settings of a node with the product's keys, and the key that signs."""
    key = product_key()
    file = tmp_path / "product.json"
    file.write_text(json.dumps({"keys": [public_members(key)]}))
    return settings.model_copy(update={"product_keys_file": file}), key


def signature(key: Any, command: Command) -> str:
    """What the product signs."""
    header = json.dumps({"alg": "ES256", "kid": public_members(key)["kid"]}).encode()
    protected = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    signed = signing_input(
        protected, command.operation, command.idempotency_key, command.body or {}
    )
    made = jwt.get_algorithm_by_name("ES256").sign(signed, key)
    return f"{protected}..{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def signed(key: Any, operation: str = "submit", **changes: Any) -> Command:
    command = envelope(operation, **changes)
    return command.model_copy(update={"signature": signature(key, command)})


def test_signed_commands_are_carried_out_and_replayed(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any]
) -> None:
    settings, key = product

    first = decide(connection, settings, signed(key))
    again = decide(connection, settings, signed(key))
    seen = decide(connection, settings, envelope("inspect"))
    stopped = decide(connection, settings, signed(key, "cancel"))

    outcomes = [verdict.outcome for verdict in (first, again, seen, stopped)]
    assert outcomes == ["accepted", "replayed", "answered", "accepted"]


@pytest.mark.parametrize("operation", ["submit", "cancel"])
@pytest.mark.parametrize("why", ["missing", "body", "operation", "key", "tenant", "node", "forged"])
def test_a_command_that_the_product_did_not_sign_is_refused_and_nothing_is_stored(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    caplog: pytest.LogCaptureFixture,
    operation: str,
    why: str,
) -> None:
    settings, key = product
    good = signed(key, operation)
    changes: dict[str, dict[str, Any]] = {
        "missing": {"signature": None},
        "body": {"body": {**(good.body or {}), "requested_by": {"user_id": "mallory"}}},
        "operation": {
            "signature": signed(key, "cancel" if operation == "submit" else "submit").signature
        },
        "key": {"idempotency_key": "key-fedcba9876543210"},
        "tenant": {"body": {**(good.body or {}), "tenant_id": "globex"}, "tenant_id": "globex"},
        "node": {"body": {**(good.body or {}), "management_node_id": "n2"}},
        "forged": {"signature": signature(product_key(), good)},
    }
    caplog.set_level(logging.INFO)

    verdict = decide(connection, settings, good.model_copy(update=changes[why]))

    assert problem_of(verdict) == "signature-invalid"
    assert nothing_written(connection)
    assert "outcome=rejected" in caplog.text
    assert str(good.signature) not in caplog.text


def test_a_replay_is_held_to_its_signature_too(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any]
) -> None:
    settings, key = product
    decide(connection, settings, signed(key))

    assert problem_of(decide(connection, settings, envelope())) == "signature-invalid"


@pytest.mark.parametrize(
    ("said", "has_keys", "outcome"),
    [
        (None, True, "rejected"),
        (None, False, "accepted"),
        (False, True, "accepted"),
        (True, False, "rejected"),
        (True, True, "rejected"),
    ],
)
def test_the_policy_says_whether_a_signature_is_required(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    said: bool | None,
    has_keys: bool,
    outcome: str,
) -> None:
    settings, _ = product
    if not has_keys:
        settings = settings.model_copy(update={"product_keys_file": None})
    if said is not None:
        table = f"\n[signatures]\nrequired = {str(said).lower()}\n"
        settings.policy_file.write_text(settings.policy_file.read_text() + table)

    verdict = decide(connection, settings, envelope())

    assert verdict.outcome == outcome


def test_while_the_policy_cannot_be_read_nobody_is_refused_for_good(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any]
) -> None:
    """Who does not sign may be allowed not to; who signs is known, and heard once the policy can be read again."""
    settings, key = product
    text = settings.policy_file.read_text()
    settings.policy_file.write_text(f"{text}\n[arrays]\nelements = 0\n")

    for command in (envelope(), signed(key)):
        verdict = decide(connection, settings, command)
        assert problem_of(verdict) == "node-failed"
        assert verdict.problem is not None
        assert verdict.problem.retry
    assert nothing_written(connection)

    settings.policy_file.write_text(text)
    assert decide(connection, settings, signed(key)).outcome == "accepted"


def test_a_signature_that_is_there_must_hold_whatever_the_policy_says(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any], settings: NodeSettings
) -> None:
    table = "\n[signatures]\nrequired = false\n"
    settings.policy_file.write_text(settings.policy_file.read_text() + table)
    forged = signed(product_key())

    assert problem_of(decide(connection, product[0], forged)) == "signature-invalid"
    assert problem_of(decide(connection, settings, forged)) == "signature-invalid"
    assert problem_of(
        decide(connection, product[0], signed(product_key(), "inspect", body={}))
    ) == ("signature-invalid")


def test_without_its_product_keys_a_node_decides_nothing(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, key = product
    assert settings.product_keys_file is not None
    settings.product_keys_file.unlink()

    verdict = decide(connection, settings, signed(key))

    assert problem_of(verdict) == "node-failed"
    assert "node enroll" in caplog.text
    assert nothing_written(connection)
