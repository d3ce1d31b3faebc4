"""A lab directory of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.paths import LabPaths
from tests.labs import scratch_lab


@pytest.fixture
def paths() -> Iterator[LabPaths]:
    """An empty lab."""
    with scratch_lab("test") as paths:
        yield paths
