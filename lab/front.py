"""What stands before the adapters of a lab: nginx with TLS, on the very file that `docs/install` ships."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab import process
from lab.paths import LabPaths

__all__ = ["Certificates", "certificates", "start"]

SHIPPED = Path(__file__).parents[1] / "docs" / "install" / "nginx.conf"
PORT = 443
START_SECONDS = 10.0


@dataclass(frozen=True)
class Certificates:
    """An authority of the lab's own, and what it vouches for."""

    authority: Path
    chain: Path
    key: Path

    def trust(self) -> ssl.SSLContext:
        """For who believes this authority."""
        return ssl.create_default_context(cafile=self.authority)


def certificates(directory: Path, address: str) -> Certificates:
    """A new authority and a certificate for one address, in files of a directory."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab authority")])
    now = datetime.now(UTC)

    def certify(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name)
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(
            now + timedelta(days=7)
        )

    authority = (
        certify(name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    host = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab adapter")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    leaf = (
        certify(host, key.public_key())
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    made = Certificates(directory / "authority.pem", directory / "tls.pem", directory / "tls.key")
    made.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    made.chain.write_bytes(leaf.public_bytes(Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def start(paths: LabPaths, address: str, replicas: Sequence[str], made: Certificates) -> str:
    """Start nginx on the address before adapters that listen on `replicas` (`host:port`); return its URL.

    Raises:
        LabError: it did not start; the message holds the end of its log.
    """
    directory = paths.directory("front")
    text = SHIPPED.read_text()
    for shipped, ours in {
        "/run/byoc-nginx.pid": str(directory / "nginx.pid"),
        "/var/log/nginx/": f"{paths.logs}/",
        "listen 443 ssl": f"listen {address}:{PORT} ssl",
        "/etc/byoc/tls.pem": str(made.chain),
        "/etc/byoc/tls.key": str(made.key),
        "127.0.0.1:8081": replicas[0],
        "127.0.0.1:8082": replicas[1],
    }.items():
        assert shipped in text, f"{SHIPPED.name} does not say {shipped}"
        text = text.replace(shipped, ours)
    # A user whose workers may read the lab's directories, and temporary files in it.
    places = "".join(
        f"    {kind}_temp_path {directory / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n{places}", 1).replace(
        "worker_processes auto;", "worker_processes 1;\nuser root;"
    )
    file = directory / "nginx.conf"
    file.write_text(text)
    daemon = process.spawn(
        paths, "front", ["nginx", "-p", directory, "-c", file, "-g", "daemon off;"]
    )
    url = f"https://{address}"
    process.wait_until(
        lambda: _answers(url, made),
        START_SECONDS,
        "nginx to answer",
        needs=[daemon],
        logs=[paths.logs / "byoc-error.log"],
    )
    return url


def _answers(url: str, made: Certificates) -> bool:
    try:
        return httpx.get(f"{url}/livez", verify=made.trust(), timeout=2).is_success
    except httpx.TransportError:
        return False
