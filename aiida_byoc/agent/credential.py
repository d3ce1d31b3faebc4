"""By what the agent is known to the adapter: a short-lived bearer, renewed at half of its life, shared by all loops.

The key is read anew for each bearer, so that a changed key counts without a restart.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Protocol

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent.backoff import Backoff
from aiida_byoc.agent.keys import private_key, public_key
from aiida_byoc.agent.link import AdapterUnavailable, ahead_of, ask, read
from aiida_byoc.contracts.enrolment import (
    ASSERTION_TYPE,
    MAX_ASSERTION_SECONDS,
    AccessToken,
    TokenRequest,
)
from aiida_byoc.node import NodeSettings

__all__ = ["Credential", "assertion", "credential", "fetched_token"]

_LOGGER = logging.getLogger(__name__)
_MOST_SECONDS = 60.0
"""Who enrols the node again waits so long at most, beside the pause of the loop that asks."""
_SKEW_SECONDS = 60.0
"""What the adapter forgives a clock."""


class Credential(Protocol):
    """What a request is sent with."""

    def bearer(self, http: httpx.Client) -> str:
        """A bearer for the next request.

        Raises:
            AdapterUnavailable: there is none for now.
            SettingsError: the key cannot be used.
        """

    def refused(self, bearer: str) -> bool:
        """Note that the adapter answered that bearer with 401; return whether another one is worth a try."""


def credential(settings: NodeSettings) -> Credential:
    """The credential of a node, to be shared by all who speak for it."""
    return _Tokens(settings) if settings.enrolled else _SelfSigned(settings)


def assertion(settings: NodeSettings, key: Ed25519PrivateKey) -> str:
    """A JWT by which the node says who it is (RFC 7523 §3), signed with that key, good once."""
    now = int(time.time())
    claims = {
        "iss": settings.node_id,
        "sub": settings.node_id,
        "aud": settings.audience,
        "iat": now,
        "exp": now + MAX_ASSERTION_SECONDS,
        "jti": str(uuid.uuid4()),
    }
    name = {"kid": public_key(key).key_id} if settings.enrolled else None
    return jwt.encode(claims, key, algorithm="EdDSA", headers=name)


def fetched_token(
    http: httpx.Client, settings: NodeSettings, key: Ed25519PrivateKey
) -> AccessToken:
    """An access token for that key (RFC 6749 §4.4).

    Raises:
        AdapterUnavailable: the adapter gave none; with status 401 it does not take the key.
    """
    form = TokenRequest.model_validate(
        {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion(settings, key),
        }
    )
    try:
        answer = ask(http, f"/nodes/{settings.node_id}/token", data=form.model_dump())
    except AdapterUnavailable as error:
        if error.status != 401:
            raise
        raise AdapterUnavailable(
            f"the adapter does not take the key of the node {settings.node_id}: {_why(error.date)};"
            " the node's jobs go on, and what they tell waits here",
            error.retry_after,
            status=401,
            problem=error.problem,
        ) from error
    return read(AccessToken, answer)


def _why(date: str | None) -> str:
    """Why a key is not taken, as far as the node can know: the adapter says of no node that it exists."""
    skew = ahead_of(date) or 0.0
    if abs(skew) > _SKEW_SECONDS:
        return f"this machine's clock is {skew:+.0f} s off the adapter's; synchronise it (NTP)"
    return (
        "the node was revoked, or enrolled elsewhere; ask the product for a new enrolment token, then run"
        " `verdi data byoc node enroll`"
    )


class _SelfSigned:
    """For a node whose key stands in the adapter's settings: the assertion itself is the bearer."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._bearer, self._key_id, self._renew_at = "", "", 0.0

    def bearer(self, http: httpx.Client) -> str:
        with self._guard:
            now = time.time()
            if now >= self._renew_at:
                key = private_key(self._settings.key_file)
                self._bearer, self._key_id = (
                    assertion(self._settings, key),
                    public_key(key).key_id,
                )
                self._renew_at = now + MAX_ASSERTION_SECONDS / 2
            return self._bearer

    def refused(self, bearer: str) -> bool:
        with self._guard:
            if bearer != self._bearer:
                return True
            self._renew_at = 0.0
            return public_key(private_key(self._settings.key_file)).key_id != self._key_id


class _Tokens:
    """For an enrolled node: an access token, fetched with an assertion."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._backoff = Backoff(first=1.0, most=_MOST_SECONDS)
        self._bearer, self._renew_at, self._expires_at = "", 0.0, 0.0
        self._closed_until, self._refusal = 0.0, ""
        self._status: int | None = None

    def bearer(self, http: httpx.Client) -> str:
        with self._guard:
            now = time.monotonic()
            if self._bearer and now < self._renew_at:
                return self._bearer
            if now < self._closed_until:
                if self._bearer and now < self._expires_at:
                    return self._bearer
                raise AdapterUnavailable(
                    self._refusal, self._closed_until - now, status=self._status
                )
            return self._renewed(http, now)

    def refused(self, bearer: str) -> bool:
        with self._guard:
            if bearer == self._bearer:
                self._bearer = ""
            return True

    def _renewed(self, http: httpx.Client, now: float) -> str:
        try:
            token = fetched_token(http, self._settings, private_key(self._settings.key_file))
        except AdapterUnavailable as error:
            pause = self._backoff.failed(error.retry_after)
            self._closed_until, self._refusal = time.monotonic() + pause, str(error)
            self._status = error.status
            if error.status == 401:
                self._bearer = ""
                _LOGGER.error(  # noqa: TRY400  (no fault of ours, and no secret in a traceback)
                    "The node is not admitted event=node_refused node=%s wait=%.1f: %s",
                    self._settings.node_id,
                    pause,
                    error,
                )
            if self._bearer and now < self._expires_at:
                return self._bearer
            raise
        self._backoff.succeeded()
        self._bearer = token.access_token
        self._renew_at, self._expires_at = now + token.expires_in / 2, now + token.expires_in
        return self._bearer
