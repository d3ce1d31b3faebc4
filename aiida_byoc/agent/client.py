"""The node's side of the adapter's HTTP: one client, short-lived tokens signed with the node's own key."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aiida_byoc import __version__
from aiida_byoc.contracts.delivery import (
    Acknowledgement,
    Command,
    CommandBatch,
    Heartbeat,
    Verdict,
)
from aiida_byoc.contracts.problems import CATALOGUE, PROBLEM_BASE, ProblemError
from aiida_byoc.contracts.validation import Model, validated
from aiida_byoc.events.relay import BatchRefused
from aiida_byoc.node import NodeSettings, SettingsError

__all__ = ["AdapterClient", "AdapterUnavailable", "private_key", "public_jwk"]

_TOKEN_SECONDS = 300
_ANSWER_SECONDS = 30.0
_OPERATIONS = ["logs"]
"""What this node knows beside what every node knows."""
_POISON = {400, 413, 422}


class AdapterUnavailable(Exception):
    """The adapter did not do what was asked; trying again later is right.

    Attributes:
        retry_after: seconds the adapter asked us to wait, if it did.
        status: the HTTP status, if there was an answer.
        problem: name in the problem catalogue, if the answer was a problem document.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        *,
        status: int | None = None,
        problem: str | None = None,
    ) -> None:
        self.retry_after, self.status, self.problem = retry_after, status, problem
        super().__init__(message)


class AdapterClient:
    """Calls of one node. Each thread needs its own."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._key = private_key(settings.key_file)
        self._token, self._renew_at = "", 0.0
        base = str(settings.adapter_url).rstrip("/")
        self._http = httpx.Client(
            base_url=f"{base}/v1/nodes/{settings.node_id}",
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=10.0),
            headers={"User-Agent": f"aiida-byoc-agent/{__version__}"},
        )

    def poll(self, *, wait_seconds: int, max_commands: int) -> list[Command]:
        """Wait for commands; an empty list when none came."""
        response = self._post(
            "/commands/poll",
            json={
                "wait_seconds": wait_seconds,
                "max_commands": max_commands,
                "operations": _OPERATIONS,
            },
            timeout=httpx.Timeout(wait_seconds + _ANSWER_SECONDS, connect=10.0),
        )
        return _read(CommandBatch, response).commands

    def verdict(self, command_id: str, verdict: Verdict) -> None:
        """Answer a command. One that the adapter no longer waits for (404) is answered all the same."""
        self._post(f"/commands/{command_id}/verdict", json=verdict.wire(), gone_is_fine=True)

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Deliver a CloudEvents batch; the answer says what the product has.

        Raises:
            BatchRefused: the answer was about what is in the batch.
        """
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        try:
            response = self._post("/events", json=batch, headers=headers)
        except AdapterUnavailable as error:
            if error.status in _POISON:
                raise BatchRefused(str(error), error.problem) from error
            raise
        return _read(Acknowledgement, response)

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Tell that we live."""
        self._post("/heartbeat", json=heartbeat.model_dump(mode="json", exclude_none=True))

    def _post(self, path: str, *, gone_is_fine: bool = False, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._bearer()}", **request.pop("headers", {})}
        try:
            response = self._http.post(path, headers=headers, **request)
        except httpx.HTTPError as error:
            raise AdapterUnavailable(f"{type(error).__name__}: {error}") from error
        if response.is_success or (gone_is_fine and response.status_code == 404):
            return response
        raise _refusal(response)

    def _bearer(self) -> str:
        now = time.time()
        if now >= self._renew_at:
            node = self._settings.node_id
            claims = {
                "iss": node,
                "sub": node,
                "aud": self._settings.audience,
                "iat": int(now),
                "exp": int(now) + _TOKEN_SECONDS,
                "jti": str(uuid.uuid4()),
            }
            self._token = jwt.encode(claims, self._key, algorithm="EdDSA")
            self._renew_at = now + _TOKEN_SECONDS / 2
        return self._token


def public_jwk(key: Ed25519PrivateKey) -> str:
    """The public half as a JWK (RFC 8037): what the adapter's settings need to know of a node."""
    return json.dumps(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True))


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the node's key; raise `SettingsError` with one sentence when it cannot be used."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"the node's key {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"the node's key {path} is not a private key in PEM form") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"the node's key {path} is not an Ed25519 key")
    return key


def _read(model: type[Model], response: httpx.Response) -> Model:
    """Read a success; one without sense (a proxy's page, perhaps) did not come from the adapter."""
    try:
        return validated(model, response.json(), what="answer")
    except (ValueError, ProblemError) as error:
        raise AdapterUnavailable(f"HTTP {response.status_code}: {error}") from error


def _refusal(response: httpx.Response) -> AdapterUnavailable:
    after = response.headers.get("Retry-After", "")
    detail, problem = "no problem document", None
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        document = response.json()
        detail = document["detail"]
        problem = document["type"].removeprefix(PROBLEM_BASE)
    return AdapterUnavailable(
        f"HTTP {response.status_code}: {detail}",
        float(after) if after.isdigit() else None,
        status=response.status_code,
        problem=problem if problem in CATALOGUE else None,
    )
