"""OCI layouts made on the spot, also ones that no honest tool would make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "DOCKER",
    "OCI",
    "Entry",
    "archive",
    "blob",
    "device",
    "directory",
    "file",
    "index",
    "layer",
    "layout",
    "link",
    "name",
    "symlink",
]

Entry = tuple[tarfile.TarInfo, bytes]


class Kinds(NamedTuple):
    """Media types."""

    index: str
    manifest: str
    config: str
    layer: str


OCI = Kinds(
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
)
DOCKER = Kinds(
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)


def file(name: str, content: str = "", **attributes: Any) -> Entry:
    return _entry(name, tarfile.REGTYPE, content.encode(), **{"mode": 0o644, **attributes})


def directory(name: str, **attributes: Any) -> Entry:
    return _entry(name, tarfile.DIRTYPE, **{"mode": 0o755, **attributes})


def symlink(name: str, target: str) -> Entry:
    return _entry(name, tarfile.SYMTYPE, linkname=target)


def link(name: str, target: str) -> Entry:
    """A hard link; the target counts from the root of the image."""
    return _entry(name, tarfile.LNKTYPE, linkname=target)


def device(name: str, kind: bytes = tarfile.CHRTYPE) -> Entry:
    return _entry(name, kind, devmajor=1, devminor=3)


def layer(*entries: Entry, compress: bool = False) -> bytes:
    """A tar archive of the entries, in this order."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0) if compress else raw.getvalue()


def layout(
    place: Path,
    layers: Sequence[bytes],
    /,
    *,
    env: Sequence[str] = ("PATH=/usr/bin",),
    kinds: Kinds = OCI,
    **changes: Any,
) -> str:
    """Write a layout of these layers, lowest first, or add another image to it; return the manifest's digest.

    Keywords change the manifest.
    """
    config = json.dumps({"config": {"Env": list(env)}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": kinds.manifest,
        "config": blob(place, config, kinds.config),
        "layers": [blob(place, content, kinds.layer) for content in layers],
        **changes,
    }
    return name(place, json.dumps(manifest).encode(), kinds.manifest)


def index(place: Path, images: Mapping[str, str], kind: str = OCI.index) -> str:
    """Add an index, {platform: digest}; return its digest."""
    entries = []
    for platform, digest in images.items():
        words = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        size = (place / "blobs" / "sha256" / digest.removeprefix("sha256:")).stat().st_size
        entries.append(
            {"mediaType": OCI.manifest, "digest": digest, "size": size, "platform": words}
        )
    content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    return name(place, content.encode(), kind)


def name(place: Path, content: bytes, kind: str) -> str:
    """Add a document that index.json names from now on, alone; return its digest."""
    entry = blob(place, content, kind)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])


def blob(place: Path, content: bytes, kind: str = OCI.layer) -> dict[str, Any]:
    """Add a blob; return its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def archive(place: Path, file: Path, mode: str = "w") -> Path:
    """Pack a layout as tools do; return the archive."""
    with tarfile.open(file, mode) as packed:  # type: ignore[call-overload]
        packed.add(place, arcname=".")
    return file


def _entry(name: str, kind: bytes, content: bytes = b"", **attributes: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content
