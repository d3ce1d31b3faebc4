"""An issuer of clients' tokens as the web has them: keys at a URL, a discovery document, and bad days."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.service.registries import Wire, send

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/.well-known/jwks.json"


class SigningKey:
    """A key of the issuer: ES256, or RS256 as Clerk's are."""

    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    @property
    def jwk(self) -> dict[str, Any]:
        public = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key())
        members = json.loads(public) if isinstance(public, str) else public
        return {**members, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        head = {"kid": self.kid, **headers}
        return jwt.encode(claims, self.private, self.algorithm, headers=head)


class IssuerServer:
    """Publishes its keys over HTTP on this machine.

    Attributes:
        keys: what it publishes.
        fault: how it fails: `slow`, `huge`, `redirect`, `500`, `junk`, `no keys`, `reset`; empty when it is well.
        asked: how often which path was asked for.
        document: what its discovery document says beside the usual.
    """

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.fault = ""
        self.asked: Counter[str] = Counter()
        self.document: dict[str, Any] = {}
        self.go_on = threading.Event()
        self.elsewhere = ""
        self._wire = Wire(self._answer)
        self.url = f"http://{self._wire.host}"
        threading.Thread(target=self._wire.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._wire.shutdown()
        self._wire.server_close()

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "user-1",
            "aud": "byoc-adapter",
            "iat": now,
            "exp": now + 60,
            "tenant_id": "acme",
            "scope": "jobs:read",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked[handler.path] += 1
        body = json.dumps({"keys": self.keys}).encode()
        if handler.path == DISCOVERY:
            document = {"issuer": self.url, "jwks_uri": self.url + KEYS, **self.document}
            send(handler, 200, json.dumps(document).encode())
        elif self.fault == "slow":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not self.go_on.wait(0.2):
                handler.wfile.write(b" ")
        elif self.fault == "reset":
            handler.close_connection = True
            handler.connection.close()
        else:
            padded = json.dumps({"keys": self.keys, "x": "y" * 300_000}).encode()
            status, content = {
                "huge": (200, padded),
                "redirect": (302, b""),
                "500": (500, body),
                "junk": (200, b"<html>"),
                "no keys": (200, b'{"keys": []}'),
            }.get(self.fault, (200, body))
            headers = {"Location": self.elsewhere} if status == 302 else {}
            send(handler, status, content, **headers)
