"""Processes that die with a connection that they live by: a supervisor starts them anew, from what is committed."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

__all__ = ["DISCONNECTED", "declare", "die", "role"]

DISCONNECTED = 70
"""Exit status of a process whose connection to the database, or a worker's to RabbitMQ, was lost."""

_LOGGER = logging.getLogger(__name__)
_declared: list[str] = []


def declare(role: str) -> None:
    """Make this process crash-only; to be called before AiiDA's storage is loaded."""
    _declared[:] = [role]


def role() -> str | None:
    """As what this process is crash-only: what it declared, or `worker`; `None` for all others."""
    if _declared:
        return _declared[0]
    return "worker" if {"daemon", "worker"} <= set(sys.argv) else None


def die(lost: str, reason: object) -> NoReturn:
    """End at once, running no handler: each could act on what is no longer so.

    Args:
        lost: what, in one word.
    """
    _LOGGER.critical(
        "%s lost event=%s_lost pid=%s: %s", lost.capitalize(), lost, os.getpid(), reason
    )
    os._exit(DISCONNECTED)
