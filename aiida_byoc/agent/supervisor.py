"""`verdi data byoc agent run`: loops and the launcher's process, kept going until the agent is told to stop.

Each loop has its own database connection and its own HTTP client, and may fail at any statement: it waits, reconnects
and goes on where the database says it is. Its connection holds the loop's lock, so a loop that lost its database has
lost its right to work as well: two agents never run the same loop. Stopping needs no ceremony; killing is as good.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from aiida_byoc.agent.answering import Answering
from aiida_byoc.agent.backoff import Backoff
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.credential import credential
from aiida_byoc.agent.fetching import fetch_lanes
from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.agent.inventory import Inventory
from aiida_byoc.agent.keys import private_key
from aiida_byoc.agent.logs import LogDesk
from aiida_byoc.agent.pulling import pull_lanes
from aiida_byoc.agent.reader import Reader
from aiida_byoc.agent.relaying import relay_lanes
from aiida_byoc.commands.retention import forget_by_policy
from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import check
from aiida_byoc.node import NodeSettings, SettingsError

__all__ = ["ONE_AGENT", "AlreadyRunning", "run"]

_LOGGER = logging.getLogger(__name__)
ONE_AGENT = 0x62796F64
"""First key of the advisory locks; the second is the hash of the loop's name."""

_LOCK_SECONDS = 5
_PRESENCE_SECONDS = 2.0
_DATABASE_SECONDS = 5.0
_TURN_SECONDS = 0.001
"""So long may one loop keep the others from running (Python's own: 5 ms); somebody waits for the channel's."""
_LAUNCHER_STOP_SECONDS = 10
_LAUNCHER_SOUND_SECONDS = 30

Step = Callable[[psycopg.Connection, AdapterClient], float]
"""One round of a loop; returns how long to wait before the next, in seconds."""


class AlreadyRunning(Exception):
    """Another agent holds this profile."""


def run(settings: NodeSettings, storage_config: Mapping[str, Any], profile: str) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: another agent holds the profile.
        SettingsError: the node's key, or what leads to the adapter, cannot be used.
    """
    private_key(settings.key_file)
    known_by = credential(settings)

    def client() -> AdapterClient:
        return AdapterClient(settings, known_by)

    sys.setswitchinterval(_TURN_SECONDS)
    presence = client()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    connection = _connect(storage_config, "agent", seconds=_LOCK_SECONDS)
    check(connection)
    refusals: list[AlreadyRunning] = []
    desk = LogDesk(settings, Reader(_command(profile, "read")))

    def be_present(_: psycopg.Connection, __: AdapterClient) -> float:
        return _PRESENCE_SECONDS

    def give_way(error: AlreadyRunning) -> None:
        refusals.append(error)
        stopping.set()

    for name, step in _steps(settings, desk).items():
        loop = _Loop(name, step, client(), storage_config, stopping)
        threading.Thread(target=loop.run, name=name, daemon=True).start()
    watch = _Loop("agent", be_present, presence, storage_config, stopping)
    threading.Thread(
        target=watch.run, args=(connection, give_way), name="agent", daemon=True
    ).start()
    _LOGGER.info("Agent started event=agent_started node=%s", settings.node_id)
    _keep_launcher(_command(profile, "launch"), stopping)
    desk.close()
    _LOGGER.info("Agent stopped event=agent_stopped node=%s", settings.node_id)
    if refusals:
        raise refusals[0]


def _steps(settings: NodeSettings, desk: LogDesk) -> dict[str, Step]:
    """What the agent does, by the name of the loop that does it."""

    inventory = Inventory()
    pulse = Pulse(settings, inventory)

    def beat(connection: psycopg.Connection, client: AdapterClient) -> float:
        pulse.skew = client.heartbeat(pulse.heartbeat(connection))
        return settings.heartbeat_seconds

    def keep_house(connection: psycopg.Connection, _: AdapterClient) -> float:
        return forget_by_policy(connection, settings.policy_file)

    return {
        "channel": Answering(settings, desk, inventory).step,
        "logs": desk.step,
        "heartbeat": beat,
        "retention": keep_house,
        **relay_lanes(),
        **pull_lanes(settings),
        **fetch_lanes(settings),
    }


class _Loop:
    """Repeat one step; reconnect and back off when anything fails."""

    def __init__(
        self,
        name: str,
        step: Step,
        client: AdapterClient,
        storage_config: Mapping[str, Any],
        stopping: threading.Event,
    ) -> None:
        self._name, self._step, self._stopping = name, step, stopping
        self._client, self._storage_config = client, storage_config

    def run(
        self,
        connection: psycopg.Connection | None = None,
        give_way: Callable[[AlreadyRunning], None] | None = None,
    ) -> None:
        """Go on until told to stop; with `give_way`, also until another agent has the loop's lock."""
        backoff, database = Backoff(), Backoff(first=0.2, most=_DATABASE_SECONDS)
        while not self._stopping.is_set():
            try:
                if connection is None or connection.closed:
                    connection = _connect(self._storage_config, self._name)
                    database.succeeded()
                # A step may begin with HTTP, and only who has the lock may speak.
                connection.execute("SELECT 1")
                wait = self._step(connection, self._client)
                backoff.succeeded()
            except AlreadyRunning as error:
                if give_way is not None:
                    give_way(error)
                    return
                wait = backoff.failed()
            except psycopg.OperationalError as error:
                wait = database.failed()
                _LOGGER.warning(
                    "Database unavailable event=database_unavailable loop=%s wait=%.1f: %s",
                    self._name,
                    wait,
                    error,
                )
                _close(connection)
            except AdapterUnavailable as error:
                wait = backoff.failed(error.retry_after)
                _LOGGER.warning(
                    "Adapter unavailable event=adapter_unavailable loop=%s wait=%.1f: %s",
                    self._name,
                    wait,
                    error,
                )
            except SettingsError as error:
                wait = backoff.failed()
                _LOGGER.error(  # noqa: TRY400  (the operator's, not ours)
                    "Settings unusable event=settings_unusable loop=%s wait=%.1f: %s",
                    self._name,
                    wait,
                    error,
                )
            except Exception:
                wait = backoff.failed()
                _LOGGER.exception("Loop failed event=loop_failed loop=%s", self._name)
                _close(connection)
            self._stopping.wait(wait)


def _connect(
    storage_config: Mapping[str, Any], name: str, *, seconds: float = 0
) -> psycopg.Connection:
    """Open the connection of a loop and take its lock, which ends with the connection.

    Args:
        seconds: how long to wait for it; PostgreSQL may still be ending the session of an agent that was killed.
    """
    connection = connect(storage_config, application=name)
    until = time.monotonic() + seconds
    lock = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
    while connection.execute(lock, (ONE_AGENT, name)).fetchone() != (True,):
        if time.monotonic() >= until:
            connection.close()
            raise AlreadyRunning("another agent is running on this profile; stop it first")
        time.sleep(0.1)
    return connection


def _close(connection: psycopg.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _command(profile: str, name: str) -> list[str]:
    """Starts one of the agent's processes that hold AiiDA."""
    return [sys.executable, "-m", "aiida", "-p", profile, "data", "byoc", "agent", name]


def _keep_launcher(command: list[str], stopping: threading.Event) -> None:
    """Restart the launcher whenever it ends: it is crash-only."""
    backoff = Backoff(first=0.2, most=10.0)
    while not stopping.is_set():
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while process.poll() is None and not stopping.wait(0.2):
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_LAUNCHER_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            return
        if stopping.is_set():
            return
        if time.monotonic() - began > _LAUNCHER_SOUND_SECONDS:
            backoff.succeeded()
        wait = backoff.failed()
        _LOGGER.warning(
            "Launcher ended event=launcher_ended status=%s wait=%.1f", process.returncode, wait
        )
        stopping.wait(wait)
