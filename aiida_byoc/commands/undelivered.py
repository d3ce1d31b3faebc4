"""Attempts whose task never reached RabbitMQ: their worker died after it had stored them, before it sent the task.

`byoc.postgres` commits both together. RabbitMQ is told after the commit, so what was stored a while ago, does not stand
in its queue and runs nowhere has no task, and is sent one. A worker takes no task that it does not begin at once.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import kiwipy
from aiida.brokers.rabbitmq import RabbitmqBroker
from aiida.engine.processes.control import get_process_tasks
from aiida.manage import get_manager

from aiida_byoc.events.hooks import transaction

__all__ = ["Undelivered"]

_LOGGER = logging.getLogger(__name__)
_LOOK_SECONDS = 10.0
_CREATED = """
SELECT child.id FROM byoc.job
CROSS JOIN LATERAL byoc.descendants(job.process_pk) AS below
JOIN db_dbnode AS child ON child.id = below.process_pk
WHERE job.dispatched_at IS NOT NULL
  AND (job.state IN ('launched', 'queued', 'running', 'held') OR job.cancel_requested_at > now() - interval '1 day')
  AND child.attributes ->> 'process_state' = 'created' AND child.ctime < now() - interval '30 seconds'
"""


class Undelivered:
    """Sends what was lost on the way; looks for it now and then, and only where the broker is RabbitMQ.

    Args:
        storage: AiiDA's.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        broker = get_manager().get_broker()
        self._broker = broker if isinstance(broker, RabbitmqBroker) else None
        self._next_look = 0.0

    def step(self) -> None:
        """Send each lost task; a failure only means that it is looked for again."""
        if self._broker is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        with transaction(self._storage) as connection:
            created = {pk for (pk,) in connection.execute(_CREATED)}
        try:
            for pk in created and created.difference(get_process_tasks(self._broker)):
                self._send(pk)
        except Exception as error:  # whatever a broker that is away raises
            _LOGGER.warning("Tasks not looked for event=undelivered_failed: %r", error)

    def _send(self, pk: int) -> None:
        controller = get_manager().get_process_controller()
        try:
            controller.get_status(pk)
        except kiwipy.UnroutableError:
            controller.continue_process(pk, nowait=False, no_reply=True)
            _LOGGER.warning("Task sent again event=undelivered pk=%s: no worker has it", pk)
