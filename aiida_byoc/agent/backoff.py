"""How long to wait before trying again: exponential with full jitter, for ever."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Delays of 0 … `first`·2ⁿ seconds, capped (AWS Architecture Blog, "Exponential Backoff and Jitter")."""

    def __init__(self, *, first: float = 0.5, most: float = 30.0) -> None:
        self._first, self._most, self._failures = first, most, 0

    def failed(self, at_least: float | None = None) -> float:
        """The delay after one more failure, in seconds; never below what the other side asked for."""
        limit = min(self._most, self._first * 2 ** min(self._failures, 16))
        self._failures += 1
        return max(random.uniform(0, limit), at_least or 0.0)  # noqa: S311  (spreads load, hides nothing)

    def succeeded(self) -> None:
        """Start anew."""
        self._failures = 0
