"""Files that only their owner may read: put in place whole or not at all, and not used when others could read them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["NotPrivate", "read_private", "write_private"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class NotPrivate(Exception):
    """The file can be read or changed by others; the message ends with the command that helps."""


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, on the disk, with mode 0600 from its first byte on; an old one stays until then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "wb") as draft:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Let the names in a directory survive a loss of power."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_private(path: Path) -> bytes:
    """Read a file of this user's own.

    Raises:
        NotPrivate: group or others may do something with it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            raise NotPrivate(f"is open to others (mode {mode:04o}); run `chmod 600 {path}`")
        return file.read()
