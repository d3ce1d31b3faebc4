"""The node's image store: OCI layouts by manifest digest, each unpacked once into a root that every runtime shares.

STORE/layouts/<64 hex>/             the OCI layout of the manifest with this digest, and of nothing else
STORE/unpacked/<64 hex>/rootfs/     its layers, one over the other: read-only for jobs
                        manifest    the manifest's bytes: the job hashes them to know which image it runs
                        files       what rootfs consists of (`tree.py`)
                        rootfs.squashfs  the same in a single file, where a runtime wants one
STORE/locks/<64 hex>                held by whoever fills or empties the places above

A directory is complete as soon as it has its name. What begins with a dot is a draft, or set aside (`upkeep.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aiida_byoc.runtimes import sources, tree
from aiida_byoc.runtimes.container import SQUASHFS
from aiida_byoc.runtimes.in_job.image import MANIFEST
from aiida_byoc.runtimes.intake import check, fill, place_of, settle
from aiida_byoc.runtimes.layers import apply_layer, remove
from aiida_byoc.runtimes.oci import (
    Image,
    ImageError,
    ImageMissing,
    SourceUnavailable,
    hex_of,
    json_of,
    resolve,
)
from aiida_byoc.runtimes.sources import Source

__all__ = [
    "DRAFT",
    "FILES",
    "OLD",
    "ROOTFS",
    "ImageError",
    "ImageMissing",
    "ImageStore",
]

ROOTFS, FILES = "rootfs", "files"
DRAFT, OLD = ".draft-", ".old-"
_MOUNT_POINTS = ("proc", "dev", "sys", "tmp", "work", "scratch")
_FILES_TO_MOUNT = ("etc/hosts", "etc/resolv.conf")
"""What the machine's network is found by, for a job that gets it."""


class ImageStore:
    """Images by manifest digest, below one directory that compute nodes share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, layout: Path, digest: str) -> Image:
        """Take an image, or of an index the one for this machine, out of the OCI layout in a directory."""
        return self.take(sources.directory(layout), digest)

    def take(self, source: Source, digest: str, *, most_bytes: int | None = None) -> Image:
        """Copy an image, and only what belongs to it, into the store; of an index, the image for this machine.

        Every blob is verified on its way. What is there already stays if it is intact, and is replaced if not; what a
        source that broke off had given is kept for the next time.

        Args:
            most_bytes: refuse an image that is larger, as it is stored and sent.

        Raises:
            ImageError: the image is damaged, too large, or of a kind that this node cannot unpack.
            SourceUnavailable: the source broke off.
        """
        image = resolve(source, digest)
        if most_bytes is not None and image.size > most_bytes:
            raise ImageError(
                f"{image.manifest.digest} has {image.size >> 20} MiB, and {most_bytes >> 20} MiB are allowed"
            )
        target = self.layout(image.manifest.digest)
        with self.lock(image.manifest.digest):
            if target.exists() and not self.damaged_blobs(image):
                return image
            draft = target.with_name(DRAFT + target.name)
            try:
                fill(draft, source, image, layouts=target.parent)
            except SourceUnavailable:
                raise
            except (ImageError, OSError):
                shutil.rmtree(draft, ignore_errors=True)
                raise
            if target.exists():
                self.set_aside(target)
            draft.rename(target)
        return image

    def digests(self) -> list[str]:
        """What the store holds."""
        found = self.directory.glob("layouts/*")
        return sorted(f"sha256:{path.name}" for path in found if not path.name.startswith("."))

    def has(self, digest: str) -> bool:
        """Whether the store holds the image."""
        return self.layout(digest).exists()

    def is_unpacked(self, digest: str) -> bool:
        """Whether the image waits unpacked for its jobs."""
        return self.unpacked(digest).exists()

    def image(self, digest: str) -> Image:
        """The image's own description of itself."""
        layout = self.layout(digest)
        if not layout.exists():
            raise ImageMissing(f"the image {digest} is not in the node's image store")
        return resolve(sources.directory(layout), digest)

    def rootfs(self, digest: str) -> Path:
        """The unpacked image; unpacks and verifies it at first use, once, however many ask at the same time.

        Raises:
            ImageMissing: the image is not in the store.
            ImageError: it is damaged, or reaches outside its own root.
            OSError: the store itself cannot be used, its disk is full perhaps.
        """
        target = self.unpacked(digest)
        if not target.exists():
            with self.lock(digest):
                if not target.exists():
                    self._unpack(self.image(digest), target).rename(target)
        return target / ROOTFS

    def squashfs(self, digest: str) -> Path:
        """The unpacked image in a single file, beside its root, for runtimes that want one; made at first use."""
        root = self.rootfs(digest)
        target = root.with_name(SQUASHFS)
        with self.lock(digest):
            if not target.exists():
                _squash(root, target)
        return target

    def unpack_anew(self, digest: str) -> None:
        """Replace the unpacked image; running jobs keep the one that they have."""
        target = self.unpacked(digest)
        with self.lock(digest):
            draft = self._unpack(self.image(digest), target)
            if target.exists():
                self.set_aside(target)
            draft.rename(target)

    def environment(self, digest: str) -> dict[str, str]:
        """The environment that the image's own configuration sets."""
        image = self.image(digest)
        content = sources.directory(self.layout(digest)).document(image.config.digest)
        try:
            config = json_of(content, image.config.digest).get("config") or {}
            pairs = [entry.partition("=") for entry in config.get("Env") or []]
        except (AttributeError, TypeError) as error:
            raise ImageError(f"the configuration {image.config.digest} has no sense") from error
        return {name: value for name, _, value in pairs}

    def damaged_blobs(self, image: Image) -> list[str]:
        """What is missing of an image's blobs, or has been altered; each in one sentence."""
        found = []
        for blob in (image.manifest, *image.blobs):
            try:
                check(place_of(self.layout(image.manifest.digest), blob), blob)
            except ImageError as error:
                found.append(str(error))
        return found

    def layout(self, digest: str) -> Path:
        """Where the image's layout is, if it is."""
        return self.directory / "layouts" / hex_of(digest)

    def unpacked(self, digest: str) -> Path:
        """Where the unpacked image is, if it is."""
        return self.directory / "unpacked" / hex_of(digest)

    @contextlib.contextmanager
    def lock(self, digest: str, *, wait: bool = True) -> Iterator[None]:
        """Be the only one to fill or empty an image's places; `BlockingIOError` when another is, and not to `wait`."""
        place = self.directory / "locks" / hex_of(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield

    def set_aside(self, place: Path) -> Path:
        """Take a directory's name away, for `upkeep` to remove; whoever works in it may go on."""
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{OLD}{place.name}-"))
        place.rename(aside)
        return aside

    def _unpack(self, image: Image, target: Path) -> Path:
        """A draft of the unpacked image, whole, beside where it belongs."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in target.parent.glob(
            f"{DRAFT}{target.name}*"
        ):  # by a process that was killed
            shutil.rmtree(abandoned)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{DRAFT}{target.name}-"))
        root = draft / ROOTFS
        try:
            root.mkdir()
            for layer in image.layers:
                place = place_of(self.layout(image.manifest.digest), layer)
                check(place, layer)
                with place.open("rb") as content:
                    apply_layer(content, root)
            _make_mount_points(root)
            tree.write_down(root, draft / FILES)
            (draft / MANIFEST).write_bytes(image.content)
            draft.chmod(0o755)
            settle(draft)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return draft


def _squash(root: Path, target: Path) -> None:
    if shutil.which("mksquashfs") is None:
        missing = "mksquashfs is not on this machine (Debian: squashfs-tools)"
        raise FileNotFoundError(errno.ENOENT, missing)
    draft = target.with_suffix(".new")
    draft.unlink(missing_ok=True)
    command = ["mksquashfs", str(root), str(draft), "-no-progress", "-quiet", "-all-root"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise OSError(errno.EIO, f"mksquashfs: {made.stderr.strip()[-200:]}")
    draft.rename(target)


def _make_mount_points(root: Path) -> None:
    for name in _MOUNT_POINTS:
        place = root / name
        if place.is_symlink() or not place.is_dir():
            remove(place)
            place.mkdir()
    for name in _FILES_TO_MOUNT:
        place = root / name
        if place.parent.is_symlink() or not place.parent.is_dir():
            remove(place.parent)
            place.parent.mkdir()
        if place.is_symlink() or not place.is_file():
            remove(place)
            place.touch()
    root.chmod(0o755)
