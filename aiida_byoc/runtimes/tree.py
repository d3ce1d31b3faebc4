"""What an unpacked image consists of: written down when it is unpacked, compared when somebody doubts it.

One JSON array a line: path, kind, and what the kind has: a directory its mode; a file its mode, size and sha256; a link
its target. Owners and times do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["differences", "write_down"]


def write_down(root: Path, file: Path) -> None:
    """Write down what is below `root`, every file by its content."""
    with file.open("w", encoding="ascii") as lines:
        for path, entry in _entries(root):
            lines.write(json.dumps([path, *entry]) + "\n")


def differences(root: Path, file: Path) -> Iterator[str]:
    """What was added below `root`, changed or taken away since; each in a few words."""
    with file.open(encoding="ascii") as lines:
        known = {path: tuple(entry) for path, *entry in map(json.loads, lines)}
    for path, entry in _entries(root):
        before = known.pop(path, None)
        if before is None:
            yield f"{path!r} was added"
        elif before != entry:
            yield f"{path!r} was changed"
    for path in known:
        yield f"{path!r} is missing"


def _entries(root: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    top = os.fspath(root)
    for directory, directories, files in os.walk(top):
        below = directory[len(top) + 1 :]
        directories.sort()
        for name in sorted([*directories, *files]):
            yield os.path.join(below, name), _entry(os.path.join(directory, name))  # noqa: PTH118


def _entry(path: str) -> tuple[Any, ...]:
    # Strings, not Paths: an image may have a hundred thousand files.
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "link", os.readlink(path)  # noqa: PTH115
    if stat.S_ISDIR(status.st_mode):
        return "directory", mode
    if not stat.S_ISREG(status.st_mode):
        return "special", mode
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = "unreadable"
    return "file", mode, status.st_size, digest
