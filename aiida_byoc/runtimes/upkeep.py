"""Looking after the image store: is everything as it was written, and what may go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from aiida_byoc.runtimes import tree
from aiida_byoc.runtimes.images import DRAFT, FILES, OLD, ROOTFS, ImageStore
from aiida_byoc.runtimes.in_job.image import MANIFEST, digest_of
from aiida_byoc.runtimes.oci import ImageError, ImageMissing, hex_of

__all__ = ["Condition", "condition", "dispensable", "remove", "retire"]


@dataclass(frozen=True)
class Condition:
    """How an image of the store is.

    Attributes:
        blobs: what is missing of its layout, or altered; each in one sentence.
        files: what differs in the unpacked image from what was unpacked; each in a few words.
    """

    digest: str
    blobs: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether jobs get what the digest promises."""
        return not self.blobs and not self.files


def condition(store: ImageStore, digest: str) -> Condition:
    """Hash every blob of an image again, and every file of what was unpacked.

    Raises:
        ImageMissing: the image is not in the store.
    """
    found = Condition(digest)
    if store.has(digest) or not store.is_unpacked(digest):
        try:
            found.blobs.extend(store.damaged_blobs(store.image(digest)))
        except ImageMissing:
            raise
        except ImageError as error:
            found.blobs.append(str(error))
    else:
        found.blobs.append("its layout is missing")
    if store.is_unpacked(digest):
        found.files.extend(_differences(store.unpacked(digest), digest))
    return found


def dispensable(store: ImageStore, *, named: Set[str], used: Set[str]) -> list[Path]:
    """The directories of the store that nobody needs, and that nobody is busy with.

    Args:
        named: digests that may stay, used or not.
        used: digests of jobs that have not ended; nothing of theirs is touched.
    """
    return [
        place
        for kind in ("layouts", "unpacked")
        for place in sorted(store.directory.glob(f"{kind}/*"))
        if _may_go(place, named=named, used=used)
    ]


def retire(store: ImageStore, place: Path) -> Path | None:
    """Take the directory out of use in an instant; return where it is now, or `None` if somebody is busy with it."""
    digest = _digest_of(place)
    if digest is None:
        return None
    try:
        with store.lock(digest, wait=False):
            return place if place.name.startswith(OLD) else store.set_aside(place)
    except (BlockingIOError, FileNotFoundError):
        return None


def remove(place: Path) -> int:
    """Remove a directory that is out of use; return how many bytes that frees."""
    freed = 0
    for directory, _, files in os.walk(place):
        for name in files:
            status = (Path(directory) / name).lstat()
            freed += status.st_blocks * 512 if status.st_nlink == 1 else 0
    shutil.rmtree(place)
    return freed


def _may_go(place: Path, *, named: Set[str], used: Set[str]) -> bool:
    digest = _digest_of(place)
    if digest is None:
        return False
    if place.name.startswith(DRAFT) and place.parent.name == "unpacked":
        return True  # of a process that was killed; of one that lives, the lock says so
    if digest in used:
        return False
    # A draft of a layout is what a source gave before it broke off: worth keeping while the policy wants the image.
    return place.name.startswith(OLD) or digest not in named


def _digest_of(place: Path) -> str | None:
    """Whose directory it is; `None` for what the store has not made."""
    name = place.name.removeprefix(OLD).removeprefix(DRAFT).partition("-")[0]
    try:
        hex_of(f"sha256:{name}")
    except ImageError:
        return None
    return f"sha256:{name}"


def _differences(place: Path, digest: str) -> list[str]:
    try:
        same = digest_of(str(place / ROOTFS)) == digest
        found = [] if same else [f"'{MANIFEST}' is missing, or another image's"]
        return [*found, *tree.differences(place / ROOTFS, place / FILES)]
    except (OSError, ValueError) as error:
        return [f"what was unpacked of {digest} cannot be read: {error}"]
