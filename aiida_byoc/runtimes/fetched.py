"""Files that the node has fetched for its jobs: by tenant and content, below one directory that compute nodes share.

DIRECTORY/<tenant>/<sha256>     whole and verified as soon as it has this name; never changed, read-only for jobs
DIRECTORY/<tenant>/.<lane>      on its way

Tenants share nothing: who knows the hash of another's file must not get it without the right to fetch it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

__all__ = ["FetchedFiles", "WrongContent"]

_DAY = 86400.0


class WrongContent(Exception):
    """What came is not what was asked for; the message says how it differs."""


class FetchedFiles:
    """The files of all tenants."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, tenant_id: str, sha256: str) -> Path:
        """Where a file is, once it is there."""
        return self.directory / tenant_id / sha256

    def touch(self, tenant_id: str, sha256: str) -> bool:
        """Note that a file is wanted; return whether it is there."""
        try:
            os.utime(self.path(tenant_id, sha256))
        except FileNotFoundError:
            return False
        return True

    def keep(
        self, tenant_id: str, sha256: str, blocks: Iterable[bytes], *, lane: str, most: int
    ) -> None:
        """Write a file down, if it is no larger than `most` bytes, and has that hash.

        Raises:
            WrongContent: it is not; nothing of it is left.
            OSError: the disk is full, or cannot be used.
        """
        target = self.path(tenant_id, sha256)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target.with_name(f".{lane}")
        try:
            with draft.open("wb") as file:
                digest = hashlib.sha256()
                for block in _bounded(blocks, most):
                    digest.update(block)
                    file.write(block)
                if digest.hexdigest() != sha256:
                    raise WrongContent("its sha256 is another")
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o400)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def prune(self, days: int, wanted: Collection[tuple[str, str]]) -> int:
        """Remove what nobody has wanted for so many days, and nobody waits for; return how many files."""
        before, removed = time.time() - days * _DAY, 0
        for path in list(self._files()):
            is_wanted = (path.parent.name, path.name) in wanted
            if not is_wanted and path.stat().st_mtime < before:
                path.unlink()
                removed += 1
        return removed

    def _files(self) -> Iterator[Path]:
        return self.directory.glob("*/*")


def _bounded(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise WrongContent(f"it has more than the {most} bytes that the node's policy allows")
        yield block
