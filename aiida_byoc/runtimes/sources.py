"""Where images come from on this machine: OCI layouts (image-spec, image-layout.md), as a directory or as an archive.

A registry is a source as well (`aiida_byoc.registry`), but nothing that runs in a job may speak HTTP.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from aiida_byoc.runtimes.oci import MAX_MANIFEST_BYTES, Blob, ImageError, hex_of

__all__ = ["Layout", "Source", "archive", "directory"]

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
_DOCKER = "manifest.json"


class Source(Protocol):
    """Gives content by digest. Whoever takes it checks size and digest: a source may be wrong."""

    def document(self, digest: str) -> bytes:
        """A manifest or an index, of at most `MAX_MANIFEST_BYTES`."""

    def read(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """The blob's content from `offset` on."""


class Layout:
    """A layout whose files somebody opens by name; opening raises `FileNotFoundError`."""

    def __init__(self, where: object, open_file: Callable[[str], BinaryIO]) -> None:
        self._where, self._open = where, open_file
        for name in ("oci-layout", "index.json"):
            try:
                self._open(name).close()
            except OSError as error:
                raise ImageError(f"{where} is no OCI layout: it has no {name}") from error

    def digest(self) -> str:
        """The one image, or index of one, that the layout is there for.

        Raises:
            ImageError: there are more, or none.
        """
        with self._open("index.json") as file:
            content = file.read(MAX_MANIFEST_BYTES)
        try:
            found = [str(entry["digest"]) for entry in json.loads(content)["manifests"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{self._where} is no OCI layout: index.json has no sense") from error
        if len(found) != 1:
            listed = ", ".join(found) or "none"
            raise ImageError(f"{self._where} has {len(found)} images, name one of them: {listed}")
        return found[0]

    def document(self, digest: str) -> bytes:
        with self._blob(digest) as blob:
            content = blob.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise ImageError(f"the blob {digest} is too large for a manifest")
        return content

    def read(self, blob: Blob, offset: int) -> Iterator[bytes]:
        with self._blob(blob.digest) as file:
            file.seek(offset)
            yield from iter(lambda: file.read(_BLOCK), b"")

    def _blob(self, digest: str) -> BinaryIO:
        try:
            return self._open(f"blobs/sha256/{hex_of(digest)}")
        except FileNotFoundError as error:
            raise ImageError(f"the blob {digest} is missing from the image") from error


def directory(place: Path) -> Layout:
    """The layout in a directory; only its regular files count."""

    def open_file(name: str) -> BinaryIO:
        # A FIFO would be waited for.
        descriptor = os.open(place / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(name)
        return open(descriptor, "rb")  # noqa: PTH123

    return Layout(place, open_file)


@contextlib.contextmanager
def archive(file: Path, scratch: Path) -> Iterator[Layout]:
    """The layout in a tar archive, plain or gzip.

    Args:
        scratch: where there is room for what a compressed archive holds.

    Raises:
        ImageError: the archive is damaged, holds no layout, or has entries that reach outside of it.
    """
    try:
        with (
            file.open("rb") as packed,
            _plain(packed, scratch) as plain,
            tarfile.open(fileobj=plain, mode="r:") as opened,
        ):
            members = _members(opened, file)

            def open_file(name: str) -> BinaryIO:
                if name not in members:
                    raise FileNotFoundError(name)
                return cast("BinaryIO", opened.extractfile(members[name]))

            if _DOCKER in members and "index.json" not in members:
                raise ImageError(
                    f"{file} is a Docker archive; let `skopeo copy docker-archive:… oci-archive:…` turn it into OCI's"
                )
            yield Layout(file, open_file)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ImageError(f"{file} is no whole tar archive, plain or gzip: {error}") from error


def _members(opened: tarfile.TarFile, file: Path) -> dict[str, tarfile.TarInfo]:
    """The regular files by their names; of several of one name the last, as tar unpacks them."""
    members = {}
    for member in opened:
        parts = PurePosixPath(member.name).parts
        if ".." in parts or member.name.startswith("/"):
            raise ImageError(f"{file} has an entry that reaches outside of it: {member.name!r}")
        if member.isreg():
            members["/".join(parts)] = member
    return members


@contextlib.contextmanager
def _plain(packed: BinaryIO, scratch: Path) -> Iterator[BinaryIO]:
    """The archive itself, or what it holds compressed: in a tar of tars one must be able to go back."""
    magic = packed.read(len(_GZIP))
    packed.seek(0)
    if magic != _GZIP:
        yield packed
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as plain, gzip.GzipFile(fileobj=packed) as content:
        shutil.copyfileobj(content, plain, _BLOCK)
        plain.seek(0)
        yield cast("BinaryIO", plain)
