"""Which image it is that runs here: what lies in the image store says so, not who sent the job."""

from .light import os

try:  # without the rest of hashlib, which loads OpenSSL (6 ms of each element's start)
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:  # from Python 3.12 on
    from hashlib import sha256

MANIFEST = "manifest"
"""Beside an unpacked root: the bytes of the manifest that it was unpacked by, whose hash is the image's digest."""


def digest_of(rootfs: str) -> "str | None":
    """Return the digest of the image that is unpacked there; `None` when there is none."""
    try:
        with open(os.path.join(os.path.dirname(rootfs), MANIFEST), "rb") as file:
            content = file.read()
    except OSError:
        return None
    return "sha256:" + sha256(content).hexdigest() if os.path.isdir(rootfs) else None


def objection(found, wanted):
    """Return why a job of the image `wanted` cannot run with the one that was found; `None` when it can."""
    if found == wanted:
        return None
    if found is None:
        return "the node's image store is not there, or lacks the image"
    return "{} is unpacked in the place of {}".format(found, wanted)
