"""How a node becomes known, and how it changes its key: `docs/contracts/node-enrolment.md`, the node's side."""

from __future__ import annotations

import hmac
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent.credential import assertion
from aiida_byoc.agent.keys import public_key
from aiida_byoc.agent.link import AdapterUnavailable, ask, read
from aiida_byoc.commands.signatures import KeysError, product_keys
from aiida_byoc.contracts.enrolment import (
    Enrolment,
    EnrolmentRequest,
    EnrolmentToken,
    KeyAddition,
    NodeKeys,
    thumbprint,
)
from aiida_byoc.node import NodeSettings, SettingsError

__all__ = ["EnrolmentRefused", "add_key", "check_url", "enrol", "retire_key", "vouched_keys"]


class EnrolmentRefused(Exception):
    """The product or the node's owner does not go on with it; the message says what helps."""


def enrol(http: httpx.Client, token: EnrolmentToken, key: Ed25519PrivateKey) -> Enrolment:
    """Bring the node's public key. May be repeated with the same token and key, if an answer was lost.

    Raises:
        EnrolmentRefused: the token is not good, or the answer is about something else.
        AdapterUnavailable: nobody knows yet.
    """
    request = EnrolmentRequest(
        node_id=token.node_id, secret=token.secret, public_key=public_key(key)
    )
    try:
        answer = ask(http, "/nodes:enroll", json=request.model_dump(mode="json"))
    except AdapterUnavailable as error:
        if error.problem != "enrolment-refused":
            raise
        raise EnrolmentRefused(
            "the product refuses the enrolment token; ask it for a new one: each is good once, for 15 minutes,"
            " for one node"
        ) from error
    enrolment = read(Enrolment, answer)
    if (enrolment.node_id, enrolment.key_id) != (token.node_id, request.public_key.key_id):
        raise EnrolmentRefused(
            "the adapter answered for another node or key; check --url, and tell the product's operator"
        )
    return enrolment


def vouched_keys(enrolment: Enrolment, token: EnrolmentToken) -> dict[str, Any]:
    """The JWK Set of the product's key that the token names, and of no other: an adapter could add keys of its own.

    Raises:
        EnrolmentRefused: it is not among those that the adapter presents.
    """
    wrong = EnrolmentRefused(
        "the adapter presents other signing keys than the token names, so nothing was written; the address may be"
        " wrong, or the adapter not the product's: tell the product's operator, and do not go on"
    )
    for members in enrolment.product_keys:
        try:
            name = thumbprint(members)
            if hmac.compare_digest(name, token.product_key_id):
                kept = {"keys": [{**members, "kid": name}]}
                product_keys(kept)
                return kept
        except (KeyError, TypeError, ValueError, KeysError):
            continue
    raise wrong


def add_key(
    http: httpx.Client, settings: NodeSettings, bearer: str, key: Ed25519PrivateKey
) -> NodeKeys:
    """Make a second key known, with proof that the node has it; also when it is known already."""
    addition = KeyAddition(public_key=public_key(key), proof=assertion(settings, key))
    path = f"/nodes/{settings.node_id}/keys"
    return read(
        NodeKeys, ask(http, path, json=addition.model_dump(mode="json"), headers=_by(bearer))
    )


def retire_key(http: httpx.Client, settings: NodeSettings, bearer: str, key_id: str) -> None:
    """Let a key be known no longer; also when it is not."""
    try:
        ask(http, f"/nodes/{settings.node_id}/keys/{key_id}/retire", headers=_by(bearer))
    except AdapterUnavailable as error:
        if error.problem != "not-found":
            raise


def check_url(settings: NodeSettings) -> None:
    """Raise `SettingsError` where a secret would travel in the clear."""
    url = settings.adapter_url
    if url.scheme != "https" and url.host not in {"localhost", "127.0.0.1", "[::1]"}:
        raise SettingsError(
            "--url: begins with http://, by which everybody on the way could read the token; use https://"
        )


def _by(bearer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer}"}
