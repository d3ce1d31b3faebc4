"""From a source into a layout: each blob verified on its way, each once, and going on where a source broke off."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
from pathlib import Path

from aiida_byoc.runtimes.oci import Blob, Image, ImageError, SourceUnavailable, hex_of
from aiida_byoc.runtimes.sources import Source

__all__ = ["check", "fill", "place_of", "settle"]

_PARTIAL = ".partial"
_BLOCK = 1 << 20


def place_of(layout: Path, blob: Blob) -> Path:
    """Where a layout keeps a blob."""
    return layout / "blobs" / "sha256" / hex_of(blob.digest)


def check(file: Path, blob: Blob) -> None:
    """Raise `ImageError` unless the file is the blob."""
    try:
        with file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            digest = "" if size != blob.size else hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ImageError(f"the blob {blob.digest} is missing from the image") from error
    if digest != hex_of(blob.digest):
        raise _altered(blob)


def fill(draft: Path, source: Source, image: Image, *, layouts: Path) -> None:
    """Make `draft` the layout of one image; what it holds from an earlier time is used.

    Args:
        layouts: where the store's other images are; what they have as well is linked.

    Raises:
        ImageError: a blob is not what it should be.
        SourceUnavailable: the source broke off; what it gave is in `draft`.
    """
    place_of(draft, image.manifest).parent.mkdir(parents=True, exist_ok=True)
    for blob in image.blobs:
        target = place_of(draft, blob)
        # What has its name was verified before it got it.
        if not target.exists() and not _link(target, blob, layouts):
            _take(target, source, blob)
    place_of(draft, image.manifest).write_bytes(image.content)
    entry = {
        "mediaType": image.manifest.media_type,
        "digest": image.manifest.digest,
        "size": image.manifest.size,
    }
    (draft / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (draft / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    draft.chmod(0o755)
    settle(draft)


def settle(directory: Path) -> None:
    """Have the file system written out: a name that is given after that never shows less, whatever is cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
    finally:
        os.close(descriptor)


def _link(target: Path, blob: Blob, layouts: Path) -> bool:
    """Share the blob with another image, if one has it intact."""
    for other in layouts.glob(f"*/blobs/sha256/{target.name}"):
        with contextlib.suppress(ImageError, OSError):
            check(other, blob)
            target.hardlink_to(other)
            return True
    return False


def _take(target: Path, source: Source, blob: Blob) -> None:
    partial = target.with_name(target.name + _PARTIAL)
    resumed = partial.exists()
    try:
        _copy(partial, source, blob)
    except SourceUnavailable:
        raise
    except ImageError:
        partial.unlink()
        if not resumed:
            raise
        _copy(partial, source, blob)  # the fault may be in what was there
    partial.rename(target)


def _copy(partial: Path, source: Source, blob: Blob) -> None:
    """Write the rest of a blob behind what is there of it."""
    digest = hashlib.sha256()
    with partial.open("a+b") as file:
        file.seek(0)
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
        size = file.tell()
        for block in source.read(blob, size):
            size += len(block)
            if size > blob.size:
                break
            digest.update(block)
            file.write(block)
    if size != blob.size or digest.hexdigest() != hex_of(blob.digest):
        raise _altered(blob)


def _altered(blob: Blob) -> ImageError:
    return ImageError(f"the blob {blob.digest} has been altered: its content has another digest")
