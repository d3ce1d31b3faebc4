"""A store on loopback that speaks real HTTPS, with certificates of an authority of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Answer", "Store", "https_store", "make_authority"]

NAMES = ("localhost", "store.example", "mirror.example")


class Answer:
    """What is sent for a path: a status, headers, and pieces of a body; `None` among the pieces cuts the connection."""

    def __init__(
        self, *pieces: bytes | None, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.pieces, self.status = pieces, status
        length = str(sum(len(piece or b"") for piece in pieces))
        self.headers = {"Content-Length": length, **(headers or {})}


@dataclass
class Store:
    """A running store.

    Attributes:
        answers: by path; a function is asked anew for each request.
        asked: path and Host header of each request.
        names: what each client called the server in its TLS handshake.
    """

    port: int
    ca_file: Path
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    def url(self, path: str = "/file", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"


@contextlib.contextmanager
def https_store(directory: Path, authority: tuple[Any, Any] | None = None) -> Iterator[Store]:
    """Serve until the end.

    Args:
        directory: for the certificates.
        authority: whose certificate the server has; by default that of `Store.ca_file`.
    """
    trusted = make_authority()
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(_pem(trusted[1]))
    key, certificate = _issue(authority or trusted, "localhost", NAMES)
    chain = directory / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain.write_bytes(private + _pem(certificate))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    store = Store(server.server_port, ca_file)
    server.store = store  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.sni_callback = lambda _, name, __: store.names.append(name)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        store: Store = self.server.store  # type: ignore[attr-defined]
        store.asked.append((self.path, self.headers["Host"]))
        answer = store.answers.get(self.path, Answer(status=404))
        if callable(answer):
            answer = answer()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            for piece in answer.pieces:
                if piece is None:
                    self.connection.close()
                    return
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        pass


def make_authority() -> tuple[Any, Any]:
    """Key and certificate of an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    builder = _builder(name, name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return key, builder.sign(key, hashes.SHA256())


def _issue(authority: tuple[Any, Any], subject: str, names: tuple[str, ...]) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    builder = _builder(name, authority[1].subject, key.public_key()).add_extension(
        x509.SubjectAlternativeName(alternatives), critical=False
    )
    return key, builder.sign(authority[0], hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _pem(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(serialization.Encoding.PEM))
