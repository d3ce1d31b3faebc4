"""What a node stands on: who could reach its database and broker, its disks, accounting, secrets in files."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiida_byoc.agent.link import AdapterUnavailable
from aiida_byoc.cli.parts import ask, parts
from aiida_byoc.cli.surroundings import (
    accounting,
    disk,
    exposure,
    identity,
    listening,
    private,
    rabbitmq,
)
from aiida_byoc.node import NodeSettings, SettingsError
from tests.node_registry import Registry

Usage = namedtuple("Usage", "total used free")


def database(
    listens: str, *, host: str = "localhost", offers: bool = False, has: bool = False
) -> Any:
    """As much of a connection as is asked."""
    row = SimpleNamespace(fetchone=lambda: (listens, offers, has))
    return SimpleNamespace(info=SimpleNamespace(host=host), execute=lambda _: row)


@pytest.mark.parametrize(
    ("connection", "wrong"),
    [
        (database("localhost"), None),
        (database("127.0.0.1, ::1"), None),
        (database("", host="/run/postgresql"), None),
        (database("*"), "listens on * without TLS"),
        (database("localhost,10.0.0.7"), "listens on 10.0.0.7 without TLS"),
        (database("*", offers=True), None),
        (database("*", host="db.example", offers=True), "db.example is not encrypted"),
        (database("*", host="db.example", offers=True, has=True), None),
    ],
)
def test_a_database_that_others_could_reach_or_overhear_is_named(
    connection: Any, wrong: str | None
) -> None:
    told = exposure(connection)

    assert (told is None) == (wrong is None)
    assert (wrong or "") in (told or "")


@pytest.mark.parametrize(
    ("host", "protocol", "wrong"),
    [
        ("queue.example", "amqp", True),
        ("queue.example", "amqps", False),
    ],
)
def test_a_broker_that_others_could_overhear_is_named(
    host: str, protocol: str, wrong: bool
) -> None:
    told = rabbitmq({"broker_host": host, "broker_protocol": protocol})

    assert (told is not None) == wrong
    assert ("amqps" in (told or "")) == wrong


@pytest.mark.parametrize(
    ("family", "address", "wrong"),
    [
        (socket.AF_INET, "127.0.0.1", None),
        (socket.AF_INET, "0.0.0.0", "RabbitMQ listens on 0.0.0.0 without TLS"),  # noqa: S104
        (socket.AF_INET6, "::1", None),
        (socket.AF_INET6, "::ffff:127.0.0.1", None),
        (socket.AF_INET6, "::", "RabbitMQ listens on :: without TLS"),
    ],
)
def test_a_broker_that_listens_to_everybody_is_named(
    family: socket.AddressFamily, address: str, wrong: str | None
) -> None:
    """Though AiiDA finds it on this machine: whoever can send it a task runs code here."""
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        config = {"broker_host": "localhost", "broker_port": port}

        assert len(list(listening(port))) == 1
        told = rabbitmq(config)
        assert rabbitmq({**config, "broker_protocol": "amqps"}) is None

    assert (told is None) == (wrong is None)
    assert (wrong or "") in (told or "")
    assert (f"listeners.tcp.1 = 127.0.0.1:{port}" in (told or "")) == (wrong is not None)
    assert list(listening(port)) == []


def test_a_disk_that_is_nearly_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "not" / "there" / "yet"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, 2**34))
    assert "has 16384 MiB left of 1048576" in (disk([place]) or "")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, 2**36))
    assert disk([place, tmp_path]) is None


@pytest.mark.parametrize(
    ("config", "sacct", "wrong"),
    [
        ("AccountingStorageType = accounting_storage/none", "exit 1", None),
        ("AccountingStorageType = (null)", "exit 1", None),
        ("AccountingStorageType = accounting_storage/slurmdbd", "exit 0", None),
        (
            "AccountingStorageType = accounting_storage/slurmdbd",
            "echo 'sacct: error: refused' >&2; exit 1",
            "`sacct` fails (sacct: error: refused)",
        ),
    ],
)
def test_accounting_that_fails_is_named_and_none_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, sacct: str, wrong: str | None
) -> None:
    for name, does in {"scontrol": f"echo '{config}'", "sacct": sacct}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    told = accounting()

    assert (told is None) == (wrong is None)
    assert (wrong or "") in (told or "")


def test_a_secret_that_others_can_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    assert private(None, "x") is private(file, "x") is None
    file.write_text("{}")
    file.chmod(0o644)
    assert "chmod 600" in (private(file, "the registries' credentials") or "")
    file.chmod(0o600)
    assert private(file, "x") is None


def test_the_adapter_is_asked_whether_it_takes_the_key(
    enrolled: NodeSettings, registry: Registry
) -> None:
    identity(enrolled)
    registry.keys.clear()

    with pytest.raises(AdapterUnavailable, match="was revoked"):
        identity(enrolled)
    enrolled.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        identity(enrolled)


@contextlib.contextmanager
def adapter(ahead: float) -> Iterator[str]:
    """An adapter whose clock is so many seconds ahead; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + ahead)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("ahead", "wrong"), [(0, False), (20, False), (-3600, True), (50, True)])
def test_a_clock_that_is_off_the_adapters_is_named(
    enrolled: NodeSettings, ahead: float, wrong: bool
) -> None:
    """Also while the database, whose clock is asked first, does not answer."""
    with adapter(ahead) as url:
        settings = enrolled.model_copy(update={"adapter_url": url})
        told = ask(parts(None, settings, "byoc.postgres")["clock"])

    assert (told is not None) == wrong
    assert ("this machine and the adapter disagree by" in (told or "")) == wrong
