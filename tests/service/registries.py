"""Registries for tests: a real one in each of its ways to ask who we are, and a false one at the wire."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiida_byoc.registry.repository import repository
from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import Image
from aiida_byoc.runtimes.reference import Reference

__all__ = [
    "BIG",
    "HTPASSWD",
    "PASSWORD",
    "REPOSITORY",
    "UNKNOWN",
    "USER",
    "Authority",
    "Wire",
    "pull",
    "send",
    "token_server",
    "wire",
]

REPOSITORY = "lab/tool"
UNKNOWN = "sha256:" + "0" * 64
BIG = os.urandom(200_000).hex()
"""More than one read of a socket brings."""

USER, PASSWORD = "node", "pass:word"
HTPASSWD = "node:$2b$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki"
"""Of the two, by bcrypt."""


class Authority:
    """A certificate of our own: for TLS on this machine, and for whoever signs tokens."""

    def __init__(self, directory: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = dt.datetime.now(dt.UTC)
        here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate_file, self.key_file = directory / "tls.crt", directory / "tls.key"
        self.certificate_file.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        self.key_file.write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def token(self, user: str, scope: str, *, service: str, seconds: int = 60) -> str:
        """A token as Docker's registry understands it."""
        kind, name, actions = scope.split(":")
        claims = {
            "iss": "tokens", "sub": user, "aud": service, "jti": "1",
            "iat": int(time.time()), "nbf": int(time.time()) - 5, "exp": int(time.time()) + seconds,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }  # fmt: skip
        chain = [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()]
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"x5c": chain})


class Wire(ThreadingHTTPServer):
    """Answers as `answer` says; keeps what it was asked."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, dict(self.headers)))
                try:
                    answer(self)
                except ConnectionError:
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = self
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"


@contextmanager
def wire(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Wire]:
    """A server for as long as the block lasts."""
    server = Wire(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """One whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def token_server(authority: Authority, *, service: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Gives tokens to `USER` by password or refresh token, and to nobody else."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            length = int(handler.headers["Content-Length"])
            asked = parse_qs(handler.rfile.read(length).decode())
            known = asked.get("refresh_token") == ["refresh"]
        else:
            asked = parse_qs(urlsplit(handler.path).query)
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            known = handler.headers.get("Authorization") == f"Basic {pair}"
        if not known:
            send(handler, 401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}')
            return
        token = authority.token(USER, asked["scope"][0], service=service)
        name = "access_token" if handler.command == "POST" else "token"
        send(handler, 200, json.dumps({name: token}).encode(), Content_Type="application/json")

    return answer


def pull(
    store: ImageStore,
    host: str,
    what: str,
    auth_file: Path | None = None,
    *,
    seconds: float = 60,
    most_bytes: int | None = None,
) -> Image:
    """What `images add docker://…` does."""
    reference = Reference.parse(f"{host}/{REPOSITORY}{what}")
    with repository(reference, auth_file, seconds=seconds) as source:
        return store.take(source, source.digest(), most_bytes=most_bytes)
