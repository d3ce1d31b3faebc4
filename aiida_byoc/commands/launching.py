"""The launcher's process: load AiiDA once, then step for ever; crash-only."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time

from aiida.manage import get_manager

from aiida_byoc.commands.launcher import Launcher
from aiida_byoc.node import NodeSettings

__all__ = ["launch_forever"]

_LOGGER = logging.getLogger(__name__)
_IDLE_SECONDS = 0.25


def launch_forever(settings: NodeSettings) -> None:
    """Launch what the ledger holds until told to stop, or until the agent that started us is gone."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    agent = os.getppid()
    runner = get_manager().get_runner()
    hand_over = functools.partial(runner.controller.continue_process, nowait=False, no_reply=True)
    launcher = Launcher(runner, settings, hand_over)
    _LOGGER.info("Launcher started event=launcher_started pid=%s", os.getpid())
    while not stopping.is_set() and os.getppid() == agent:
        began = time.monotonic()
        if not launcher.step():
            stopping.wait(max(0.0, _IDLE_SECONDS - (time.monotonic() - began)))
