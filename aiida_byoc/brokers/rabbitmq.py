"""A worker on `core.rabbitmq` dies with its connection.

RabbitMQ hands every task that was not acknowledged to another worker as soon as the connection is gone. AiiDA's worker
reconnects and goes on with the same processes (seen: a work chain run to its end by two workers, its node sealed as
running). One that dies is started anew by its supervisor, and takes on what it is given.
"""

from __future__ import annotations

import asyncio

from aiida.manage import get_manager
from aiida.manage.configuration.profile import Profile

from aiida_byoc.storage import crash_only

__all__ = ["die_with_the_connection"]


def die_with_the_connection(profile: Profile) -> None:
    """Make this worker die when its connection to RabbitMQ ends; nothing to do with any other broker."""
    if profile.process_control_backend == "core.rabbitmq":
        get_manager().get_communicator().add_close_callback(_die)


def _die(_: object, reason: BaseException | None = None) -> None:
    # A worker that closes it by itself is about to end in order.
    if not isinstance(reason, asyncio.CancelledError):
        crash_only.die("broker", reason)
