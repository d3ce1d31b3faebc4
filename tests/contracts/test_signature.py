"""The signature that the product puts under a command, by its golden vector; `signing.test.ts` signs it too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from aiida_byoc.contracts.canonical import canonical_json
from aiida_byoc.contracts.enrolment import thumbprint
from aiida_byoc.contracts.signature import signing_input

VECTOR = json.loads((Path(__file__).parent / "vectors" / "command-signature.v1.json").read_text())
INTENT = {name: VECTOR[name] for name in ("operation", "idempotency_key", "body")}


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verifies(**intent: Any) -> bool:
    """Whether the vector's signature is one under this intent."""
    public = {name: VECTOR["private_key"][name] for name in ("kty", "crv", "x", "y")}
    es256 = ECAlgorithm(ECAlgorithm.SHA256)
    protected, signature = VECTOR["signature"].split("..")
    return es256.verify(
        signing_input(protected, **(INTENT | intent)), es256.from_jwk(public), decoded(signature)
    )


def test_the_vector_verifies():
    assert verifies()


def test_the_intent_of_the_vector_has_one_text():
    assert canonical_json(INTENT).decode() == VECTOR["payload"]


def test_the_header_names_algorithm_and_thumbprint():
    protected = json.loads(decoded(VECTOR["signature"].split("..")[0]))

    assert protected == {"alg": "ES256", "kid": thumbprint(VECTOR["private_key"])}


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "cancel"},
        {"idempotency_key": None},
        {"idempotency_key": "another-0123456789"},
        {"body": VECTOR["body"] | {"tenant_id": "rival"}},
        {"body": VECTOR["body"] | {"extra": None}},
        {"body": {}},
    ],
    ids=str,
)
def test_a_signature_serves_for_no_other_intent(change):
    assert not verifies(**change)
