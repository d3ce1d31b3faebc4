"""A throw-away PostgreSQL server by pgtest, also for root, whom the server itself refuses."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pgtest.pgtest import PGTest

from lab.paths import SERVICE_USER, as_user
from lab.postgres import binary

__all__ = ["server"]

_MEMORY = "/dev/shm"
_ENOUGH_BYTES = 2**30


@contextmanager
def server() -> Iterator[PGTest]:
    """Run a server until the end of the block; nothing remains."""
    pg_ctl = Path(binary("pg_ctl"))
    home = Path(tempfile.mkdtemp(prefix="byoc-pg-", dir=_place()))
    try:
        if os.geteuid() == 0:
            pg_ctl = _for_service_user(pg_ctl, home)
        with pytest.MonkeyPatch.context() as patch:
            # Debian keeps the server's programs off the PATH, and pgtest needs one more of them.
            patch.setenv("PATH", str(Path(binary("pg_ctl")).parent), prepend=os.pathsep)
            with PGTest(pg_ctl=str(pg_ctl), base_dir=str(home), max_connections=100) as running:
                yield running
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _place() -> str | None:
    """Memory, where there is enough of it: a new database per test is many small files."""
    try:
        memory = os.statvfs(_MEMORY)
    except OSError:
        return None
    fits = memory.f_bavail * memory.f_frsize >= _ENOUGH_BYTES
    usable = os.access(_MEMORY, os.W_OK) and not memory.f_flag & os.ST_NOEXEC
    return _MEMORY if fits and usable else None


def _for_service_user(pg_ctl: Path, home: Path) -> Path:
    """Give the service user the directories, and a `pg_ctl` that becomes that user."""
    for directory in (home, home / "data", home / "tmp"):
        directory.mkdir(exist_ok=True)
        shutil.chown(directory, SERVICE_USER, SERVICE_USER)
    wrapper = home / "pg_ctl"
    command = shlex.join(["setpriv", *as_user(SERVICE_USER), str(pg_ctl)])
    wrapper.write_text(f'#!/bin/sh\ncd / && exec {command} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper
