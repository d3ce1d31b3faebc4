"""The session of `byoc.psql_dos`: what one callback of an event loop has read, it does not ask for again.

AiiDA asks the database anew before it reads any attribute, and forgets all rows at each commit, so that it sees what
others write: of the statements of a job of `core.psql_dos`, 440 of 1,058 were such reads. But whatever could tell a
process of another's write (a notice, a timer, the end of something awaited) reaches it as a later callback of its event
loop. So what a callback has read or written is good until it ends, and all is forgotten before anything that was
scheduled after the read runs. Only what it reads first and subscribes to afterwards it may miss: so AiiDA waits for a
child, and looks again at intervals, since a broadcast is but a hint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from aiida.orm.implementation.querybuilder import QueryDictType
from aiida.storage.psql_dos.backend import PsqlDosBackend
from aiida.storage.psql_dos.orm.querybuilder.main import SqlaQueryBuilder
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session

from aiida_byoc.storage.statements import Statements

__all__ = ["CallbackSession", "LeanQuery"]

_MOST_SECONDS = 0.1
"""What was read longer ago is read anew also within a callback: it may wait for something without its event loop."""


class CallbackSession(Session):
    """A session that keeps rows for one callback of the running event loop; where none runs, AiiDA's way."""

    _loop: asyncio.AbstractEventLoop | None = None
    _since = 0.0
    _expires_on_commit = True

    def keeps(self) -> bool:
        """Whether rows are kept now; the first that asks in a callback sees to it that they are forgotten."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if self._loop not in {None, loop}:  # it has stopped, and not come to forget
            self._loop = None
            self.expire_all()
        if loop is not None and self._loop is None:
            self._loop, self._since = loop, time.monotonic()
            loop.call_soon(self._forget, loop)
        return loop is not None

    def _is_old(self) -> bool:
        """Whether what is kept was read too long ago; whoever asks forgets it."""
        now = time.monotonic()
        if now - self._since < _MOST_SECONDS:
            return False
        self._since = now
        return True

    @property
    def expire_on_commit(self) -> bool:
        """Whether a commit makes all rows unknown (SQLAlchemy asks at each)."""
        return self._is_old() if self.keeps() else self._expires_on_commit

    @expire_on_commit.setter
    def expire_on_commit(self, value: bool) -> None:
        if (
            not self.keeps()
        ):  # AiiDA sets back what it has found, and would find what a callback has
            self._expires_on_commit = value

    def expire(self, instance: object, attribute_names: Any = None) -> None:
        """What AiiDA calls before each read, and only then: make the row unknown, unless it is this callback's."""
        if not self.keeps():
            super().expire(instance, attribute_names)
        elif self._is_old():  # AiiDA flushes whatever it writes at once, so nothing is lost
            self.expire_all()

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        # AiiDA has committed what it wrote; what it only read nobody ends, and the next callback may be hours away.
        if self.in_transaction() and not self.in_nested_transaction():
            self.rollback()
        self._loop = None
        self.expire_all()


@event.listens_for(CallbackSession, "do_orm_execute")
def _loads(executed: ORMExecuteState) -> None:
    # Whatever it loads is forgotten with the callback.
    session = executed.session
    if isinstance(session, CallbackSession):
        session.keeps()


class LeanQuery(SqlaQueryBuilder):
    """AiiDA's queries, without statements that can make no difference."""

    def __init__(self, backend: PsqlDosBackend, statements: Statements) -> None:
        super().__init__(backend)
        self._statements = statements

    def count(self, data: QueryDictType) -> int:
        # Of each link AiiDA asks whether it closes a circle, though mostly its node is not stored, thus in none.
        unstored = any(filters.get("id", 0) is None for filters in data["filters"].values())
        if unstored and not any(each["outerjoin"] for each in data["path"]):
            return 0
        return int(super().count(data))

    def iterall(self, data: QueryDictType, batch_size: int | None) -> Iterator[list[Any]]:
        # AiiDA opens a savepoint, since its caller may write while rows are handed on, and commits: not for what is
        # read whole, in a transaction that ends with the callback.
        session = self.get_session()
        if batch_size is not None or not session.keeps():
            yield from super().iterall(data, batch_size)
            return
        statement, values = self._statements.find(data, self._build)
        try:
            # Only within a transaction may something wait to be flushed; to look makes SQLAlchemy warn of nodes that
            # are not stored.
            with nullcontext() if session.in_nested_transaction() else session.no_autoflush:
                rows = session.execute(statement, values).all()
        except Exception:  # as AiiDA does
            session.close()
            raise
        for row in rows:
            yield [self.to_backend(item) for item in row]
