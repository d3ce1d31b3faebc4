"""An adapter of little patience, and what must be so whatever was sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.service.adapter_process import Adapter

__all__ = ["PATIENCE", "allowed", "hostile", "others_are_served"]

PATIENCE = 1.0
"""Its `request_seconds`."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, base_settings, keys, convex_session) -> Iterator[Adapter]:
    """An adapter of little patience."""
    directory = tmp_path_factory.mktemp("hostile")
    settings = base_settings(directory, keys, convex_session) | {"request_seconds": PATIENCE}
    adapter = Adapter(directory, settings)
    yield adapter
    adapter.stop()


@pytest.fixture
def others_are_served(hostile: Adapter) -> Iterator[None]:
    """Whatever the test sent: afterwards the adapter is the same process, is well, and told of no failure."""
    yield
    assert httpx.get(f"{hostile.url}/readyz", timeout=10, trust_env=False).status_code == 200
    assert hostile.process.poll() is None
    assert "Traceback" not in hostile.log.read_text()


@pytest.fixture
def allowed(keys) -> dict[str, str]:
    """Headers of a client that may submit."""
    return {
        "Authorization": f"Bearer {keys.client('acme')}",
        "Content_Type": "application/json",
        "Idempotency_Key": f'"{uuid4()}"',
    }
