"""Two alternatives in turns: of a machine whose speed changes by half within minutes, both see the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Once", "in_turns", "on_one_core", "timed"]

Once = Callable[[], float]
"""Does a thing once, and returns the seconds of it that count."""


def timed(ask: Callable[[], object]) -> Once:
    """All of it counts."""

    def once() -> float:
        began = time.perf_counter()
        ask()
        return time.perf_counter() - began

    return once


def in_turns(one: Once, other: Once, *, rounds: int, each: int) -> tuple[list[float], list[float]]:
    """Seconds of either's repetitions, so many of each in a round; who is first in one is second in the next."""
    took: tuple[list[float], list[float]] = ([], [])
    pair = [(one, took[0]), (other, took[1])]
    for _ in range(rounds):
        for once, seconds in pair:
            seconds += [once() for _ in range(each)]
        pair.reverse()
    return took


@contextmanager
def on_one_core(*pids: int) -> Iterator[None]:
    """Meanwhile these processes share a core with this one.

    A question to a process on another core takes half as long again, and who sits where may last for seconds.

    Raises:
        OSError: one of them is gone, or not ours.
    """
    before = {pid: os.sched_getaffinity(pid) for pid in (0, *pids)}
    core = min(before[0])
    try:
        for pid in before:
            os.sched_setaffinity(pid, {core})
        yield
    finally:
        for pid, cores in before.items():
            os.sched_setaffinity(pid, cores)
