"""A lab directory of a test's own, swept and removed whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.paths import LabPaths
from lab.process import sweep


@contextmanager
def scratch_lab(purpose: str) -> Iterator[LabPaths]:
    """An empty lab. Not below tmp_path: that is closed to the service user, and too long for sockets."""
    parent = Path(tempfile.mkdtemp(prefix=f"byoc-{purpose}-"))
    parent.chmod(0o755)
    paths = LabPaths(parent / "lab")
    try:
        yield paths
    finally:
        sweep(LabPaths(paths.root))
        for place in LabPaths(paths.root).places():
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(parent)
