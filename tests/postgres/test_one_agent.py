"""One agent per profile, also when its sessions end: the lock of each loop is the connection's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiida_byoc.agent import supervisor
from aiida_byoc.node import NodeSettings
from tests.eventually import eventually

AGENT = """
import json, sys
from pathlib import Path
from aiida_byoc.agent import supervisor
from aiida_byoc.node import NodeSettings

supervisor.run(NodeSettings.load(Path(sys.argv[1])), json.loads(sys.argv[2]), "no-such-profile")
"""
LOOPS = {"byoc-agent", "byoc-channel", "byoc-heartbeat"}

# Backends that hold a lock of the agent, by the name of their loop.
HOLDERS = """
SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND datname = current_database() AND application_name LIKE 'byoc-%'
"""
END = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database()
"""

Agent = subprocess.Popen[str]


@pytest.fixture
def start_agent(
    settings: NodeSettings, storage: dict[str, Any], tmp_path: Path
) -> Iterator[Callable[[], Agent]]:
    """Start an agent whose adapter does not answer and whose launcher cannot start."""
    key = Ed25519PrivateKey.generate()
    settings.key_file.touch(mode=0o600)
    settings.key_file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    settings.save(tmp_path / "node.toml")
    agents: list[Agent] = []

    def start() -> Agent:
        command = [sys.executable, "-c", AGENT, str(tmp_path / "node.toml"), json.dumps(storage)]
        agents.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()
        agent.communicate()


def holders(connection: psycopg.Connection) -> dict[str, int]:
    """Which backend holds the lock of which loop."""
    return dict(connection.execute(HOLDERS).fetchall())


def all_hold(connection: psycopg.Connection) -> dict[str, int]:
    """The backends of all loops, once all have their lock."""

    def complete() -> dict[str, int]:
        found = holders(connection)
        return found if found.keys() >= LOOPS else {}

    return eventually(complete, "every loop to hold its lock", seconds=60)


def test_a_second_agent_gives_way(
    connection: psycopg.Connection, start_agent: Callable[[], Agent]
) -> None:
    """And the first one keeps its locks."""
    start_agent()
    before = all_hold(connection)

    _, said = start_agent().communicate(timeout=60)

    assert "AlreadyRunning: another agent is running" in said
    assert before.items() <= all_hold(connection).items()


def test_an_agent_whose_sessions_ended_goes_on(
    connection: psycopg.Connection, start_agent: Callable[[], Agent]
) -> None:
    """As after a restart of PostgreSQL: every loop has a new session and its lock again."""
    agent = start_agent()
    before = all_hold(connection)

    for name in before:
        connection.execute(END, (name,))

    def anew() -> bool:
        return set(all_hold(connection).values()).isdisjoint(before.values())

    assert eventually(anew, "all loops to reconnect", seconds=60)
    assert agent.poll() is None


def test_an_agent_that_was_replaced_meanwhile_ends(
    connection: psycopg.Connection, start_agent: Callable[[], Agent]
) -> None:
    """Its lock is another's when it comes back, so it must not."""
    agent = start_agent()
    all_hold(connection)

    def replaced() -> bool:
        connection.execute(END, ("byoc-agent",))
        lock = "SELECT pg_try_advisory_lock(%s, hashtext('agent'))"
        return connection.execute(lock, (supervisor.ONE_AGENT,)).fetchone() == (True,)

    eventually(replaced, "the agent's lock", seconds=30)
    _, said = agent.communicate(timeout=60)

    assert "AlreadyRunning" in said
    assert agent.returncode != 0
