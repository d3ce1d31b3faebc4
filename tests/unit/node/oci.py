"""OCI layouts made on the spot, also ones that no honest tool would make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Entry", "device", "directory", "file", "layer", "layout", "link", "symlink"]

Entry = tuple[tarfile.TarInfo, bytes]


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


def layout(place: Path, layers: Sequence[bytes], *, env: Sequence[str] = ("PATH=/usr/bin",)) -> str:
    """Write a layout of these layers, lowest first; return the manifest's digest."""
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifest = {
        "schemaVersion": 2,
        "config": {"digest": _blob(place, json.dumps({"config": {"Env": list(env)}}).encode())},
        "layers": [{"digest": _blob(place, content)} for content in layers],
    }
    return _blob(place, json.dumps(manifest).encode())


def _blob(place: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (place / "blobs" / "sha256" / digest).write_bytes(content)
    return f"sha256:{digest}"


def _entry(name: str, kind: bytes, content: bytes = b"", **attributes: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content
