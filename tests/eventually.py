"""Wait for a condition, with a deadline; never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")
_POLL_SECONDS = 0.02
_TAIL = 4000


def eventually(
    condition: Callable[[], T], what: str, *, seconds: float = 10.0, logs: Iterable[Path] = ()
) -> T:
    """Poll until the condition returns something true, and return that.

    Raises:
        AssertionError: the deadline passed; the message holds the last answer and the ends of the logs.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            ends = "".join(f"\n--- {log}\n{log.read_text()[-_TAIL:]}" for log in logs)
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; last: {answer!r}{ends}")
        time.sleep(_POLL_SECONDS)
    return answer
