"""The keys of a node over HTTP: what checks its receipts, for whoever may read its jobs and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from aiida_byoc.contracts.receipt.__main__ import main
from aiida_byoc.contracts.receipt.keys import keys_from
from aiida_byoc.contracts.receipt.verification import ReceiptError
from tests.eventually import eventually
from tests.service.enrolled import NodeKey, bearer
from tests.service.node import PROBLEMS
from tests.service.test_receipts import KEY, receipt_of

RECEIPT_KEY = NodeKey(KEY)


@pytest.fixture
def node_id(convex) -> str:
    """A node that serves acme alone, with the key that signs the receipts of these tests."""
    name = f"node-{uuid4()}"
    convex.registry.enrol(name, RECEIPT_KEY.key_id, RECEIPT_KEY.jwk, "acme")
    return name


@pytest.fixture
def ask(http: httpx.Client) -> Callable[[str, str], httpx.Response]:
    def ask(node_id: str, token: str) -> httpx.Response:
        return http.get(f"/v1/nodes/{node_id}/keys", headers=bearer(token))

    return ask


@pytest.fixture
def receipt(tmp_path: Path) -> str:
    """A file with a receipt that the node signed."""
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt_of()))
    return str(file)


def test_they_are_a_jwk_set_that_checks_a_receipt(ask, keys, node_id, receipt, tmp_path):
    answer = ask(node_id, keys.client("acme", scope="jobs:read"))

    assert answer.status_code == 200
    signing = {"kid": RECEIPT_KEY.key_id, "use": "sig", "alg": "EdDSA"}
    assert answer.json() == {"keys": [{**RECEIPT_KEY.jwk, **signing}]}
    known = tmp_path / "keys.json"
    known.write_bytes(answer.content)
    assert main(["verify", receipt, "--keys", str(known)]) == 0


def test_the_program_fetches_them_with_the_readers_token(ask, keys, node_id, receipt, monkeypatch):
    url = str(ask(node_id, keys.client("acme")).request.url)

    with pytest.raises(ReceiptError, match=r"the answer is 401: set BYOC_TOKEN"):
        keys_from(url)
    monkeypatch.setenv("BYOC_TOKEN", keys.client("acme"))

    assert [key.key_id for key in keys_from(url)] == [RECEIPT_KEY.key_id]
    assert main(["verify", receipt, "--keys", url]) == 0


def test_a_key_that_was_added_is_there_long_before_the_cache_is_old(ask, convex, keys, node_id):
    """Else receipts could not be checked for half a minute after the node changed its key."""
    token, new = keys.client("acme"), NodeKey()
    assert len(ask(node_id, token).json()["keys"]) == 1
    convex.registry.nodes[node_id].keys[new.key_id] = new.jwk

    def told() -> list[str]:
        return [key["kid"] for key in ask(node_id, token).json()["keys"]]

    eventually(lambda: told() == [RECEIPT_KEY.key_id, new.key_id], "the new key", seconds=15)


def test_a_revoked_node_has_none(ask, convex, keys, node_id):
    convex.registry.nodes[node_id].state = "revoked"

    assert ask(node_id, keys.client("acme")).json() == {"keys": []}


def test_keys_of_other_kinds_in_the_settings_sign_no_receipts(ask, keys):
    assert ask("n1", keys.client("acme")).json() == {"keys": []}


def test_other_tenants_see_what_they_see_of_a_node_that_is_not_there(ask, keys, node_id):
    foreign = ask(node_id, keys.client("globex"))
    missing = ask(f"node-{uuid4()}", keys.client("globex"))

    assert (foreign.status_code, foreign.json()["type"]) == (404, PROBLEMS + "not-found")
    assert (foreign.content, foreign.status_code) == (missing.content, missing.status_code)


def test_who_may_not_read_jobs_does_not_read_keys(ask, keys, node_id):
    answer = ask(node_id, keys.client("acme", scope="jobs:submit"))

    assert (answer.status_code, answer.json()["type"]) == (403, PROBLEMS + "forbidden")
