"""Carrying out cancels: the intent is in the ledger, so it is tried until the job has ended."""

from __future__ import annotations

import time
from typing import Any

from aiida.engine.processes.control import kill_processes
from aiida.orm import load_node

from aiida_byoc.events.hooks import transaction

__all__ = ["Stopper"]

_KILL_SECONDS = 5.0
_KILL_AGAIN_SECONDS = 2.0

_TO_STOP = """
SELECT process_pk FROM byoc.job
WHERE cancel_requested_at IS NOT NULL AND dispatched_at IS NOT NULL
  AND state IN ('launched', 'queued', 'running', 'held')
ORDER BY cancel_requested_at LIMIT 20
"""


class Stopper:
    """Kills work chains whose cancel was accepted. AiiDA only logs a failure, so it tries until they have ended."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._again: dict[int, float] = {}

    def step(self) -> None:
        """Ask every work chain that is due to stop."""
        now = time.monotonic()
        with transaction(self._storage) as connection:
            to_stop = [row[0] for row in connection.execute(_TO_STOP)]
        due = {pk: self._again.get(pk, now) for pk in to_stop}
        for pk in [pk for pk, again in due.items() if again <= now]:
            kill_processes([load_node(pk)], timeout=_KILL_SECONDS)
            due[pk] = time.monotonic() + _KILL_AGAIN_SECONDS
        self._again = due
