"""One server for the session, one fresh database for each test, migrated unless the test says otherwise."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgtest.pgtest import PGTest
from psycopg import sql

from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import migrate
from aiida_byoc.node import NodeSettings
from tests.builders import NODE, POLICY
from tests.postgres.server import server

Connect = Callable[[], psycopg.Connection]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PGTest]:
    with server() as running:
        yield running


@pytest.fixture(scope="session")
def template(postgres: PGTest) -> str:
    """A database as `byoc init` leaves it."""
    _administer(postgres, "CREATE DATABASE template_byoc")
    with connect(storage_of(postgres, "template_byoc"), application="init") as connection:
        migrate(connection)
        connection.execute("INSERT INTO byoc.node (node_id) VALUES (%s)", (NODE,))
    return "template_byoc"


@pytest.fixture
def storage(postgres: PGTest, template: str) -> Iterator[dict[str, Any]]:
    """The storage configuration of a profile whose database is ready."""
    yield from _fresh(postgres, template)


@pytest.fixture
def bare_storage(postgres: PGTest) -> Iterator[dict[str, Any]]:
    """The storage configuration of a profile that `byoc init` has not seen."""
    yield from _fresh(postgres, "template1")


@pytest.fixture
def open_connection(storage: dict[str, Any]) -> Iterator[Connect]:
    """Open connections as the parts of a node do; closed after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(connect(storage, application="test"))


@pytest.fixture
def connection(open_connection: Connect) -> psycopg.Connection:
    return open_connection()


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    """A node whose policy places the example command."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    return NodeSettings.model_validate(
        {
            "node_id": NODE,
            "adapter_url": "http://127.0.0.1:1",
            "key_file": tmp_path / "node.pem",
            "policy_file": policy,
            "image_store": tmp_path / "images",
            "code": "byoc@slurm",
        }
    )


def _fresh(postgres: PGTest, template: str) -> Iterator[dict[str, Any]]:
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgres, "CREATE DATABASE {} TEMPLATE {}", name, template)
    yield storage_of(postgres, name)
    _administer(postgres, "DROP DATABASE {} WITH (FORCE)", name)


def storage_of(postgres: PGTest, database: str) -> dict[str, Any]:
    """The storage configuration of a profile on this server."""
    return {
        "database_hostname": "localhost",
        "database_port": postgres.port,
        "database_username": postgres.username,
        "database_password": "",
        "database_name": database,
    }


def _administer(postgres: PGTest, statement: str, *names: str) -> None:
    with connect(storage_of(postgres, "postgres"), application="tests") as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
