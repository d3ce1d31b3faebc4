"""Asking AiiDA's processes to die, without waiting for whoever may be dead or asleep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import kiwipy
from aiida.manage import get_manager

__all__ = ["Killer", "ask_to_die"]

_LOGGER = logging.getLogger(__name__)
_AGAIN_SECONDS = 10.0
"""A worker is at it, or has not woken up: AiiDA tries `scancel` for minutes."""


def ask_to_die(pk: int) -> object:
    """Send the call to the worker that runs the process; raise when none does."""
    return get_manager().get_process_controller().kill_process(pk, msg_text="stopped by byoc")


class Killer:
    """Asks each process at most once in a while, and no other while the broker does not take calls.

    Args:
        ask: asks whoever runs the process of that pk, and does not wait for the answer.
    """

    def __init__(self, ask: Callable[[int], object]) -> None:
        self._ask = ask
        self._asked: dict[int, float] = {}
        self._broker_from = 0.0

    def kill(self, pk: int) -> None:
        """Ask, unless that was done a moment ago; a failure only means that it is asked again."""
        now = time.monotonic()
        self._asked = {each: at for each, at in self._asked.items() if now - at < _AGAIN_SECONDS}
        if pk in self._asked or now < self._broker_from:
            return
        try:
            self._ask(pk)
        except kiwipy.UnroutableError:
            _LOGGER.info("Process not reached event=kill_unroutable pk=%s: no worker has it", pk)
        except Exception as error:
            self._broker_from = now + _AGAIN_SECONDS
            _LOGGER.warning("Process not asked event=kill_failed pk=%s: %r", pk, error)
        else:
            self._asked[pk] = now
