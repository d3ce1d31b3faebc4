"""The launcher's process: load AiiDA once, then step for ever; crash-only."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import Any

from aiida.brokers.zeromq import ZeromqBroker
from aiida.manage import get_manager

from aiida_byoc.commands.launcher import Launcher
from aiida_byoc.database import notifications
from aiida_byoc.database.connection import connect
from aiida_byoc.node import NodeSettings
from aiida_byoc.storage import crash_only

__all__ = ["launch_forever"]

_LOGGER = logging.getLogger(__name__)
_TRANSACTIONAL = "byoc.postgres"
_IDLE_SECONDS = 1.0
"""What may be launched is heard of; cancels, repairs and what comes due with time are looked for."""
_GATHER_SECONDS = 0.1
"""Commands may come by the hundred each second while there is room for none."""
_BROKER_SECONDS = 1.0


class _BrokerChanged(Exception):
    """The broker this process is connected to is gone."""


def launch_forever(settings: NodeSettings) -> None:
    """Launch what the ledger holds until told to stop, until the agent that started us is gone, or the broker is."""
    crash_only.declare("launcher")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    agent = os.getppid()

    def goes_on() -> bool:
        return not stopping.is_set() and os.getppid() == agent

    broker = get_manager().get_broker()
    while (life := _life(broker)) is None and goes_on():
        _LOGGER.warning("Broker missing event=broker_missing: is `verdi daemon` running?")
        stopping.wait(_BROKER_SECONDS)
    runner = get_manager().get_runner()

    def hand_over(pk: int) -> None:
        if _life(broker) != life:
            raise _BrokerChanged
        runner.controller.continue_process(pk, nowait=False, no_reply=True)

    profile = get_manager().get_profile()
    transactional = profile.process_control_backend == _TRANSACTIONAL
    launcher = Launcher(runner, settings, hand_over, transactional=transactional)
    _LOGGER.info("Launcher started event=launcher_started pid=%s", os.getpid())
    with (
        connect(profile.storage_config, application="launcher-waits") as connection,
        contextlib.suppress(_BrokerChanged),
    ):
        while goes_on() and _life(broker) == life:
            if not launcher.step():
                stopping.wait(_GATHER_SECONDS)
                notifications.wait(connection, notifications.LAUNCHER, _IDLE_SECONDS)
    if _life(broker) != life:
        _LOGGER.warning("Broker changed event=broker_changed: starting anew")


def _life(broker: Any) -> object:
    """Which life of the broker this is; `None` while it is not there.

    `core.zeromq` lives and dies with the daemon, and sends to a dead one succeed in silence: the task would be lost.
    All others say so when they cannot take a task.
    """
    if not isinstance(broker, ZeromqBroker):
        return "apart"
    if not broker.check_service_reachable():
        return None
    return broker.probe_service_status().get("pid")
