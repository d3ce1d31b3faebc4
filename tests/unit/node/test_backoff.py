"""Waiting grows to a bound, with full jitter, and never falls below what was asked for."""

from __future__ import annotations

import pytest

from aiida_byoc.agent import backoff
from aiida_byoc.agent.backoff import Backoff


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Draw the upper bound, and remember the lower ones."""
    lower: list[float] = []

    def draw(low: float, high: float) -> float:
        lower.append(low)
        return high

    monkeypatch.setattr(backoff.random, "uniform", draw)
    return lower


def test_the_bound_doubles_up_to_the_most(longest: list[float]) -> None:
    waiting = Backoff(first=0.5, most=5.0)

    assert [waiting.failed() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert set(longest) == {0}


def test_it_never_gives_up(longest: list[float]) -> None:
    waiting = Backoff(first=0.5, most=30.0)

    assert [waiting.failed() for _ in range(5000)][-1] == 30.0
    assert len(longest) == 5000


def test_success_starts_anew(longest: list[float]) -> None:
    waiting = Backoff(first=0.5, most=30.0)
    for _ in range(4):
        waiting.failed()

    waiting.succeeded()

    assert waiting.failed() == 0.5
    assert longest


def test_the_other_sides_wish_is_a_lower_bound(longest: list[float]) -> None:
    waiting = Backoff(first=1.0, most=30.0)

    assert waiting.failed(at_least=7.0) == 7.0
    assert waiting.failed(at_least=0.1) == 2.0
    assert waiting.failed(at_least=120.0) == 120.0
    assert longest


def test_waits_are_spread_over_the_whole_range() -> None:
    waits = [Backoff(first=8.0).failed() for _ in range(400)]

    assert all(0 <= wait <= 8 for wait in waits)
    assert min(waits) < 1
    assert max(waits) > 7
