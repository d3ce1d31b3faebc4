"""A private OCI registry: Debian's `docker-registry`, on the loopback, with TLS and a login if wanted."""

from __future__ import annotations

import hashlib
import json
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import process
from lab.paths import LabPaths

__all__ = ["NAME", "Registry", "push", "start", "stop"]

NAME = "registry"
HOST = "127.0.0.1"
START_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running registry; `host` has its port, as references do."""

    pid: int
    host: str
    log: Path


def start(
    paths: LabPaths,
    name: str = NAME,
    *,
    tls: tuple[Path, Path] | None = None,
    auth: Mapping[str, Any] | None = None,
) -> Registry:
    """Start the server on new or existing data, and wait until it listens.

    Args:
        name: tells several in one lab apart; `data` are shared by all of them.
        tls: certificate and key, in PEM form.
        auth: its section `auth`, in the words of its own documentation.

    Raises:
        LabError: it did not start; the message holds the end of its log.
        FileNotFoundError: it is not installed.
    """
    port = paths.ports(name)[0]
    http: dict[str, Any] = {"addr": f"{HOST}:{port}"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    configuration = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.directory(NAME))}},
        "http": http,
        **({"auth": auth} if auth else {}),
    }
    file = paths.root / f"{name}.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    server = process.spawn(paths, name, ["docker-registry", "serve", file])
    process.wait_until(
        lambda: _listens(port), START_SECONDS, "the registry to listen", needs=[server]
    )
    return Registry(pid=server.pid, host=f"{HOST}:{port}", log=server.log)


def stop(paths: LabPaths, name: str = NAME) -> None:
    """Stop the server; what was pushed stays."""
    process.stop(paths, name)


def push(registry: Registry, layout: Path, repository: str, *tags: str, digest: str = "") -> str:
    """Push an image, or an index with all that it names, out of an OCI layout; return its digest.

    Args:
        digest: of the manifest or index; by default the one that the layout is there for.
    """
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    digest = digest or str(entry["digest"])
    content = _blob(layout, digest).read_bytes()
    document = json.loads(content)
    for other in document.get("manifests", []):
        push(registry, layout, repository, digest=other["digest"])
    for descriptor in [document["config"], *document["layers"]] if "config" in document else []:
        _push_blob(registry, repository, _blob(layout, descriptor["digest"]).read_bytes())
    for name in (digest, *tags):
        _send(registry, "PUT", f"{repository}/manifests/{name}", content, document["mediaType"])
    return digest


def _push_blob(registry: Registry, repository: str, content: bytes) -> None:
    place = _send(registry, "POST", f"{repository}/blobs/uploads/")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    separator = "&" if "?" in place else "?"
    _send(registry, "PUT", f"{place}{separator}digest={digest}", content)


def _send(
    registry: Registry,
    method: str,
    path: str,
    content: bytes = b"",
    kind: str = "application/octet-stream",
) -> str:
    """Send something; return the answer's `Location`."""
    url = path if path.startswith("http:") else f"http://{registry.host}/v2/{path}"
    request = urllib.request.Request(  # noqa: S310  (our own server)
        url, data=content, method=method, headers={"Content-Type": kind}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return str(answer.headers.get("Location") or "")


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5):
            return True
    except OSError:
        return False
