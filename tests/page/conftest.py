"""The page in a real browser, in front of the whole stack: what is tested is what a person sees and does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.labs import lab, lab_paths  # noqa: F401 - found by name
from tests.page.reader import WAIT_MILLISECONDS, Desk, Reader, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Not for the session: Playwright's event loop would be in the way of other tests' own."""
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=chromium(), args=sandbox)
        yield running
        running.close()


@pytest.fixture
def desk(browser: Browser, lab: dict[str, Any]) -> Iterator[Desk]:  # noqa: F811
    """Where readers sit down; at the end no browser may have complained."""
    desk = Desk(browser, lab)
    yield desk
    desk.close()
    assert desk.complaints == []


@pytest.fixture
def acme(desk: Desk) -> Reader:
    """A user of the first tenant, signed in."""
    return desk.reader(0)
