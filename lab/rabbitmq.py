"""A private RabbitMQ server, for a lab whose profile is on `core.rabbitmq`.

A worker acknowledges a task when its process has ended, perhaps days later, so the server's `consumer_timeout` (30 min
by default) is off: it would hand every longer process to a second worker.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.paths import LabPaths
from lab.proctable import MARK

__all__ = ["NAME", "PROGRAM", "RabbitMQ", "control", "start", "stop"]

NAME = "rabbitmq"
HOST = "127.0.0.1"
USER = "byoc"
PROGRAM = Path(
    "/usr/lib/rabbitmq/bin/rabbitmq-server"
)  # Debian's; the one on PATH changes the user
START_SECONDS = 120.0

CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
default_user = {user}
default_pass = {password}
loopback_users = none
log.console = true
log.console.level = warning
"""
NO_CONSUMER_TIMEOUT = "[{rabbit, [{consumer_timeout, undefined}]}].\n"
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
HELLO = b"AMQP\x00\x00\x09\x01"


@dataclass(frozen=True, kw_only=True)
class RabbitMQ:
    """A running server."""

    pid: int
    host: str
    port: int
    user: str
    password: str


def start(paths: LabPaths) -> RabbitMQ:
    """Start the server on new or existing data, and wait until it speaks AMQP.

    Raises:
        LabError: it did not start; the message holds the end of its log.
        FileNotFoundError: it is not installed.
    """
    if not PROGRAM.exists():
        raise FileNotFoundError(
            "there is no RabbitMQ server: run BYOC_LAB_BROKER=core.rabbitmq make bootstrap"
        )
    home = paths.directory(NAME)
    port = paths.ports(NAME, 3)[0]
    password = _password(home)
    (home / "rabbitmq.conf").write_text(
        CONFIGURATION.format(host=HOST, port=port, user=USER, password=password)
    )
    (home / "advanced.config").write_text(NO_CONSUMER_TIMEOUT)
    # With this the script becomes the server, which is what is to be killed.
    environment = {**_environment(paths), "RABBITMQ_ALLOW_INPUT": "1"}
    server = process.spawn(paths, NAME, [PROGRAM, "-noinput"], env=environment)
    process.wait_until(
        lambda: _speaks_amqp(port), START_SECONDS, "RabbitMQ to speak AMQP", needs=[server]
    )
    return RabbitMQ(pid=server.pid, host=HOST, port=port, user=USER, password=password)


def stop(paths: LabPaths) -> None:
    """Stop the server; its queues stay. Erlang's port mapper ends with the sweep."""
    process.stop(paths, NAME, patience=60)


def control(paths: LabPaths, *arguments: str) -> str:
    """What `rabbitmqctl` says about the server.

    Raises:
        LabError: it failed.
    """
    outcome = subprocess.run(
        [PROGRAM.with_name("rabbitmqctl"), *arguments],
        env={**os.environ, **_environment(paths), MARK: str(paths.root)},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    if outcome.returncode != 0:
        raise process.LabError(f"rabbitmqctl failed:\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def _environment(paths: LabPaths) -> dict[str, str]:
    home = paths.directory(NAME)
    _, distribution, names = paths.ports(NAME, 3)
    return {
        "HOME": str(home),  # the Erlang cookie
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(names),
        "RABBITMQ_NODENAME": f"{paths.name}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(paths.logs),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK_ONLY,
    }


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(HELLO)
            return bool(connection.recv(1))
    except OSError:
        return False


def _password(home: Path) -> str:
    file = home / "password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(24))
    return file.read_text()
