"""The node's image store: an OCI layout, verified blob by blob, unpacked once into a content-addressed rootfs.

STORE/layouts/<64 hex>/    the OCI layout whose manifest has this digest
STORE/rootfs/<64 hex>/     its unpacked layers, read-only for jobs; complete as soon as it exists
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = ["ImageError", "ImageStore"]

_MOUNT_POINTS = ("proc", "dev", "tmp", "work")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_GZIP = b"\x1f\x8b"


class ImageError(Exception):
    """An image is missing, damaged or of a kind that cannot be unpacked; the message says which."""


class ImageStore:
    """Images by manifest digest, below one directory that compute nodes share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, layout: Path, digest: str) -> None:
        """Copy an OCI layout into the store, if the manifest `digest` and all it names are there and intact."""
        target = self._layout(digest)
        if target.exists():
            return
        manifest = _json_blob(layout, digest)
        for descriptor in (manifest["config"], *manifest["layers"]):
            _verified_blob(layout, descriptor["digest"])
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".adding-"))
        shutil.copytree(layout, staging, dirs_exist_ok=True)
        with _only_one(target.parent / ".lock"):
            if target.exists():
                shutil.rmtree(staging)
            else:
                staging.rename(target)

    def digests(self) -> list[str]:
        """What the store holds."""
        found = self._directory.glob("layouts/*")
        return sorted(f"sha256:{path.name}" for path in found if not path.name.startswith("."))

    def rootfs(self, digest: str) -> Path:
        """The unpacked image; unpacks and verifies it at first use, once, however many ask at the same time.

        Raises:
            ImageError: the image is not in the store, or a blob does not have the digest it is known by.
        """
        target = self._directory / "rootfs" / _hex(digest)
        if target.exists():
            return target
        layout = self._layout(digest)
        if not layout.exists():
            raise ImageError(f"the image {digest} is not in the node's image store")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.parent / ".lock"):
            if target.exists():
                return target
            staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpacking-"))
            try:
                for descriptor in _json_blob(layout, digest)["layers"]:
                    _apply_layer(_verified_blob(layout, descriptor["digest"]), staging)
                for name in _MOUNT_POINTS:
                    (staging / name).mkdir(exist_ok=True)
                staging.chmod(0o755)
                staging.rename(target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        return target

    def environment(self, digest: str) -> dict[str, str]:
        """The environment that the image's own configuration sets."""
        layout = self._layout(digest)
        config = _json_blob(layout, _json_blob(layout, digest)["config"]["digest"])
        pairs = (entry.partition("=") for entry in config.get("config", {}).get("Env") or [])
        return {name: value for name, _, value in pairs}

    def _layout(self, digest: str) -> Path:
        return self._directory / "layouts" / _hex(digest)


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ImageError(f"{digest!r} is not a sha256 digest")
    return value


def _verified_blob(layout: Path, digest: str) -> bytes:
    path = layout / "blobs" / "sha256" / _hex(digest)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"the blob {digest} is missing from the image") from error
    if hashlib.sha256(content).hexdigest() != _hex(digest):
        raise ImageError(f"the blob {digest} has been altered: its content has another digest")
    return content


def _json_blob(layout: Path, digest: str) -> dict[str, Any]:
    try:
        value = json.loads(_verified_blob(layout, digest))
    except ValueError as error:
        raise ImageError(f"the blob {digest} is not JSON") from error
    return cast("dict[str, Any]", value)


def _apply_layer(blob: bytes, root: Path) -> None:
    """Unpack one layer (OCI image-spec, layer.md): whiteouts first, then entries; never outside `root`."""
    raw: BinaryIO = io.BytesIO(blob)
    if blob.startswith(_GZIP):
        raw = cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    with tarfile.open(fileobj=raw, mode="r|") as archive:
        for member in archive:
            name = Path(member.name)
            if name.name == _OPAQUE:
                for child in (root / name.parent).iterdir():
                    _remove(child)
            elif name.name.startswith(_WHITEOUT):
                _remove(root / name.parent / name.name.removeprefix(_WHITEOUT))
            elif member.isfile() or member.isdir() or member.issym() or member.islnk():
                # Ownership is dropped: the image is read-only to jobs, and an ordinary user cannot set it.
                member.uid = member.gid = os.getuid()
                archive.extract(member, root, filter=_safe)


def _safe(member: tarfile.TarInfo, root: str) -> tarfile.TarInfo | None:
    """PEP 706's `tar` filter, but links may be absolute: at run time they resolve inside the image."""
    if member.issym():
        parent = (Path(root) / member.name).parent.resolve()
        if not parent.is_relative_to(Path(root).resolve()):
            raise ImageError(f"the layer puts {member.name!r} outside the image")
        return member
    return tarfile.tar_filter(member, root)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
