"""`byoc.psql_dos`: AiiDA's PostgreSQL storage, in whose unattended processes a lost connection is the end.

After a restart of PostgreSQL a worker of `core.psql_dos` goes on with a session that can do nothing (measured: 8 of 8
running jobs stood still until an operator mended them, upstream issue 3867). A process that dies instead is started
anew by its supervisor and goes on from the checkpoints (measured: the same 8 jobs ended 10 s after the restart).
"""

from __future__ import annotations

from typing import Any

import psycopg
from aiida.storage.psql_dos.backend import PsqlDosBackend
from aiida.storage.psql_dos.utils import create_sqlalchemy_engine
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.orm import scoped_session, sessionmaker

from aiida_byoc.brokers import rabbitmq, worker
from aiida_byoc.database.connection import KEEP_ALIVE
from aiida_byoc.storage import crash_only

__all__ = ["ByocPsqlDosBackend"]


class ByocPsqlDosBackend(PsqlDosBackend):
    """PostgreSQL and a disk-objectstore, as `core.psql_dos`: the same data, the same schema, other connections.

    Daemon workers and the node's launcher are crash-only. Any other process, `verdi` above all, asks each pooled
    connection whether it still lives before it uses it.
    """

    def _initialise_session(self) -> None:
        engine = self._engine()
        if crash_only.role() is not None:
            event.listen(engine, "handle_error", _die_with_the_connection)
            event.listen(engine, "connect", _end_if_fenced)
        if crash_only.role() == "worker":
            rabbitmq.die_with_the_connection(self._profile)
        self._session_factory = scoped_session(
            sessionmaker(bind=engine, future=True, expire_on_commit=True)
        )

    def _engine(self) -> Engine:
        config = self._profile.storage_config
        configured = config.get("engine_kwargs", {})
        connect_args = {
            "application_name": _application_name(),
            **KEEP_ALIVE,
            **configured.get("connect_args", {}),
        }
        defaults: dict[str, Any] = {"pool_pre_ping": crash_only.role() is None}
        engine_kwargs = {**defaults, **configured, "connect_args": connect_args}
        engine: Engine = create_sqlalchemy_engine({**config, "engine_kwargs": engine_kwargs})
        return engine


def _application_name() -> str:
    role = crash_only.role()
    return worker.application_name() if role == "worker" else f"byoc-{role or 'verdi'}"


def _end_if_fenced(connection: psycopg.Connection, _: object) -> None:
    # A worker whose sessions another one has ended must not go on with new ones.
    worker.check(connection)
    connection.rollback()


def _die_with_the_connection(context: ExceptionContext) -> None:
    # Without a connection in the context there was none to be had.
    if context.is_disconnect or context.connection is None:
        crash_only.die("database", context.original_exception)
