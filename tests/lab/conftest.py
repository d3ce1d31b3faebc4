"""A lab directory of its own for every test, swept and removed whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.paths import LabPaths
from lab.process import sweep


@pytest.fixture
def paths() -> Iterator[LabPaths]:
    """An empty lab. Not below tmp_path: that is closed to the service user, and too long."""
    parent = Path(tempfile.mkdtemp(prefix="byoc-test-"))
    parent.chmod(0o755)
    paths = LabPaths(parent / "lab")
    try:
        yield paths
    finally:
        sweep(paths)
        for place in paths.places():
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(parent)
