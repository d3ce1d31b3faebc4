"""The node's image store: an OCI layout, verified blob by blob, unpacked once into a content-addressed rootfs.

STORE/layouts/<64 hex>/    the OCI layout whose manifest has this digest
STORE/rootfs/<64 hex>/     its unpacked layers, read-only for jobs; complete as soon as it exists
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from aiida_byoc.runtimes.layers import ImageError, apply_layer, remove

__all__ = ["ImageError", "ImageStore"]

_MOUNT_POINTS = ("proc", "dev", "tmp", "work")
_DRAFT = ".draft-"


class ImageStore:
    """Images by manifest digest, below one directory that compute nodes share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, layout: Path, digest: str) -> None:
        """Copy an OCI layout into the store, if the manifest `digest` and all it names are there and intact."""
        target = self._layout(digest)
        if target.exists():
            return
        config, layers = _manifest(layout, digest)
        for blob in (config, *layers):
            _verified(layout, blob).close()
        _make_once(target, lambda draft: shutil.copytree(layout, draft, dirs_exist_ok=True))

    def digests(self) -> list[str]:
        """What the store holds."""
        found = self._directory.glob("layouts/*")
        return sorted(f"sha256:{path.name}" for path in found if not path.name.startswith("."))

    def rootfs(self, digest: str) -> Path:
        """The unpacked image; unpacks and verifies it at first use, once, however many ask at the same time.

        Raises:
            ImageError: the image is not in the store, is damaged, or reaches outside its own root.
        """
        target = self._directory / "rootfs" / _hex(digest)
        if target.exists():
            return target
        layout = self._layout(digest)
        if not layout.exists():
            raise ImageError(f"the image {digest} is not in the node's image store")
        _make_once(target, lambda draft: _unpack(layout, digest, draft))
        return target

    def environment(self, digest: str) -> dict[str, str]:
        """The environment that the image's own configuration sets."""
        layout = self._layout(digest)
        config = _json_blob(layout, _manifest(layout, digest)[0])
        pairs = (entry.partition("=") for entry in config.get("config", {}).get("Env") or [])
        return {name: value for name, _, value in pairs}

    def _layout(self, digest: str) -> Path:
        return self._directory / "layouts" / _hex(digest)


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ImageError(f"{digest!r} is not a sha256 digest")
    return value


def _verified(layout: Path, digest: str) -> BinaryIO:
    """Open a blob at its beginning, if its content has the digest it is known by."""
    try:
        blob = (layout / "blobs" / "sha256" / _hex(digest)).open("rb")
    except OSError as error:
        raise ImageError(f"the blob {digest} is missing from the image") from error
    if hashlib.file_digest(blob, "sha256").hexdigest() != _hex(digest):
        blob.close()
        raise ImageError(f"the blob {digest} has been altered: its content has another digest")
    blob.seek(0)
    return blob


def _json_blob(layout: Path, digest: str) -> dict[str, Any]:
    with _verified(layout, digest) as blob:
        try:
            value = json.load(blob)
        except ValueError as error:
            raise ImageError(f"the blob {digest} is not JSON") from error
    return cast("dict[str, Any]", value)


def _manifest(layout: Path, digest: str) -> tuple[str, list[str]]:
    """The digests of the image's configuration and of its layers, lowest first."""
    manifest = _json_blob(layout, digest)
    try:
        return manifest["config"]["digest"], [layer["digest"] for layer in manifest["layers"]]
    except (KeyError, TypeError) as error:
        raise ImageError(
            f"{digest} is not the manifest of one image (an index, perhaps)"
        ) from error


def _unpack(layout: Path, digest: str, root: Path) -> None:
    for digest_of_layer in _manifest(layout, digest)[1]:
        with _verified(layout, digest_of_layer) as layer:
            apply_layer(layer, root)
    for name in _MOUNT_POINTS:
        place = root / name
        if place.is_symlink() or not place.is_dir():
            remove(place)
            place.mkdir()
    root.chmod(0o755)


def _make_once(target: Path, make: Callable[[Path], object]) -> None:
    """Let one of several processes fill a directory, which appears as `target` once it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        for abandoned in target.parent.glob(_DRAFT + "*"):  # by a process that was killed
            shutil.rmtree(abandoned)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=_DRAFT))
        try:
            make(draft)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
