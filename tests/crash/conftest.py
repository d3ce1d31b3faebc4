"""One lab for the whole tier: two workers, proxies on its wires, and whatever dies comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.chaos.arena import Arena, arena
from tests.labs import scratch_lab


@pytest.fixture(scope="session")
def whole_arena() -> Iterator[Arena]:
    """The lab of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYOC_LAB_WORKERS", "2")
        with scratch_lab("crash") as paths, arena(paths) as built:
            yield built


@pytest.fixture(name="arena")
def clean_arena(whole_arena: Arena) -> Iterator[Arena]:
    """The same lab, with nothing left of an earlier test's faults."""
    whole_arena.calm()
    whole_arena.slurm_forgot = whole_arena.product_forgot = False
    yield whole_arena
    whole_arena.calm()
