"""`byoc.psql_dos`: AiiDA's PostgreSQL storage, in whose unattended processes a lost connection is the end.

After a restart of PostgreSQL a worker of `core.psql_dos` goes on with a session that can do nothing (measured: 8 of 8
running jobs stood still until an operator mended them, upstream issue 3867). A process that dies instead is started
anew by its supervisor and goes on from the checkpoints (measured: the same 8 jobs ended 10 s after the restart).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import psycopg
from aiida.common import timezone
from aiida.storage.psql_dos.backend import PsqlDosBackend, get_filepath_container
from aiida.storage.psql_dos.models.settings import DbSetting
from aiida.storage.psql_dos.utils import create_sqlalchemy_engine
from disk_objectstore import Container
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import scoped_session, sessionmaker

from aiida_byoc.brokers import rabbitmq, worker
from aiida_byoc.database.connection import KEEP_ALIVE
from aiida_byoc.storage import crash_only
from aiida_byoc.storage.repository import DirectRepository
from aiida_byoc.storage.session import CallbackSession, LeanQuery
from aiida_byoc.storage.statements import Statements

__all__ = ["ByocPsqlDosBackend"]


class ByocPsqlDosBackend(PsqlDosBackend):
    """PostgreSQL and a disk-objectstore, as `core.psql_dos`: the same data, the same schema, other connections, and
    fewer statements.

    Daemon workers and the node's launcher are crash-only. Any other process, `verdi` above all, asks each pooled
    connection whether it still lives before it uses it.
    """

    def _initialise_session(self) -> None:
        engine = self._engine()
        self._statements = Statements()
        if crash_only.role() is not None:
            event.listen(engine, "handle_error", _die_with_the_connection)
            event.listen(engine, "connect", _end_if_fenced)
        if crash_only.role() == "worker":
            rabbitmq.die_with_the_connection(self._profile)
        self._session_factory = scoped_session(sessionmaker(bind=engine, class_=CallbackSession))

    def get_repository(self) -> DirectRepository:
        return DirectRepository(container=Container(get_filepath_container(self.profile)))

    def query(self) -> LeanQuery:
        return LeanQuery(self, self._statements)

    def set_global_variable(
        self,
        key: str,
        value: str | float | None,
        description: str | None = None,
        overwrite: bool = True,
    ) -> None:
        # AiiDA notes the time of every transition of every process in the same two rows, and counts them before.
        if not overwrite:
            super().set_global_variable(key, value, description, overwrite)
            return
        now = timezone.now()
        row = insert(DbSetting).values(key=key, val=value, description=description or "", time=now)
        upsert = row.on_conflict_do_update(index_elements=["key"], set_={"val": value, "time": now})
        with nullcontext() if self.in_transaction else self.transaction():
            self.get_session().execute(upsert)

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
