"""An adapter on loopback that knows nodes by enrolment: what `docs/contracts/node-enrolment.md` says, and no more."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from aiida_byoc.contracts.enrolment import EnrolmentToken, thumbprint
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Registry", "node_registry", "product_key", "public_members"]

AUDIENCE = "byoc-adapter"
NOW = "2026-03-01T12:00:00.000Z"


def product_key() -> ec.EllipticCurvePrivateKey:
    """A key that signs commands."""
    return ec.generate_private_key(ec.SECP256R1())


def public_members(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """Its public half, named by its thumbprint."""
    members: dict[str, Any] = jwt.get_algorithm_by_name("ES256").to_jwk(
        key.public_key(), as_dict=True
    )
    return {**members, "kid": thumbprint(members), "alg": "ES256"}


@dataclass
class Registry:
    """The adapter, and what the product would know behind it.

    Attributes:
        keys: live keys (JWK) of the one node, by name, oldest first.
        redeemed: which key each secret was redeemed by (hash).
        tokens: access tokens and the keys they were given for.
        lose: paths (by regular expression) whose next answer is lost after it was carried out.
        requests: path, headers and body of each request.
        expires_in: life of access tokens, in seconds.
    """

    url: str = ""
    node_id: str = "engine-node"
    tenants: tuple[str, ...] = ("acme",)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    redeemed: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    product_keys: list[dict[str, Any]] = field(default_factory=list)
    lose: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    expires_in: int = 600
    answer: Callable[[str, Any], tuple[int, Any]] = lambda path, body: (200, {"commands": []})

    def token(self, product_key_id: str | None = None) -> EnrolmentToken:
        """What an owner gets from the product."""
        token = EnrolmentToken(
            self.node_id, secrets.token_urlsafe(32), product_key_id or self.product_keys[0]["kid"]
        )
        self.secrets.add(hashlib.sha256(token.secret.encode()).hexdigest())
        return token

    def asked(self, pattern: str) -> list[tuple[str, dict[str, str], bytes]]:
        """The requests of a path."""
        return [request for request in self.requests if re.search(pattern, request[0])]

    def handle(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Carry one request out."""
        if path.endswith("/v1/nodes:enroll"):
            return self._enroll(json.loads(body))
        if path.endswith("/token"):
            return self._token(parse_qs(body.decode(), strict_parsing=True))
        key_id = self.tokens.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if key_id not in self.keys:
            raise ProblemError("unauthenticated")
        if path.endswith("/keys"):
            return self._add(json.loads(body))
        if found := re.search(r"/keys/([^/]+)/retire$", path):
            if list(self.keys) == [found[1]]:
                raise ProblemError("validation-failed")
            self.keys.pop(found[1], None)
            return 200, self._listed()
        return self.answer(path, json.loads(body))

    def _enroll(self, request: dict[str, Any]) -> tuple[int, Any]:
        proof = hashlib.sha256(request["secret"].encode()).hexdigest()
        name = thumbprint(request["public_key"])
        known = self.redeemed.setdefault(proof, name)
        if request["node_id"] != self.node_id or proof not in self.secrets or known != name:
            raise ProblemError("enrolment-refused")
        self.keys = {name: request["public_key"]}
        return 201, {
            "node_id": self.node_id,
            "key_id": name,
            "tenants": list(self.tenants),
            "audience": AUDIENCE,
            "product_keys": self.product_keys,
        }

    def _token(self, form: dict[str, list[str]]) -> tuple[int, Any]:
        assertion = form["client_assertion"][0]
        name = jwt.get_unverified_header(assertion)["kid"]
        if name not in self.keys:
            raise ProblemError("unauthenticated")
        self._verified(assertion, self.keys[name])
        token = f"{secrets.token_urlsafe(16)}.{name}.x"
        self.tokens[token] = name
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}

    def _add(self, addition: dict[str, Any]) -> tuple[int, Any]:
        name = thumbprint(addition["public_key"])
        self._verified(addition["proof"], addition["public_key"])
        if name not in self.keys and len(self.keys) == 2:
            raise ProblemError("too-many-keys")
        self.keys[name] = addition["public_key"]
        return 201, self._listed()

    def _verified(self, assertion: str, key: dict[str, Any]) -> None:
        claims = jwt.decode(
            assertion, jwt.PyJWK(key), algorithms=["EdDSA"], audience=AUDIENCE, issuer=self.node_id
        )
        assert claims["sub"] == self.node_id
        assert claims["exp"] - claims["iat"] <= 300
        assert 16 <= len(claims["jti"]) <= 64

    def _listed(self) -> dict[str, Any]:
        return {"keys": [{"key_id": name, "added_at": NOW} for name in self.keys]}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(200, {})

    def do_POST(self) -> None:
        registry: Registry = self.server.registry  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        registry.requests.append((self.path, dict(self.headers), body))
        try:
            status, answer = registry.handle(self.path, dict(self.headers), body)
        except ProblemError as error:
            status, answer = error.kind.status, error.problem().model_dump(mode="json")
        for pattern in registry.lose:
            if re.search(pattern, self.path):
                registry.lose.remove(pattern)
                self.close_connection = True
                self.connection.close()
                return
        self._send(status, answer)

    def _send(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()


@contextlib.contextmanager
def node_registry() -> Iterator[Registry]:
    """Serve until the end."""
    registry = Registry(product_keys=[public_members(product_key())])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.registry = registry  # type: ignore[attr-defined]
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
