"""The session of `byoc.psql_dos`: rows are kept for one callback of the event loop, and no longer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from aiida.common.links import LinkType
from aiida.manage import get_manager
from aiida.orm import CalculationNode, Dict, Group, QueryBuilder
from sqlalchemy import event

from aiida_byoc.storage import session as sessions
from lab import postgres
from tests.engine.driving import callbacks

SET = """
UPDATE db_dbnode SET extras = jsonb_set(extras, '{theirs}', to_jsonb(%s::text))
WHERE id = (SELECT max(id) FROM db_dbnode)
"""


@pytest.fixture
def stored(profile: Any) -> Dict:
    """A node whose row is unknown."""
    assert profile.storage_backend == "byoc.psql_dos"
    node: Dict = Dict({"a": 1}).store()
    return node


@pytest.fixture
def others(server: postgres.Postgres) -> Iterator[Callable[[str], object]]:
    """Write an extra of the newest node over a connection of one's own, asking AiiDA nothing."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        yield lambda value: connection.execute(SET, (value,))


@contextmanager
def statements() -> Iterator[list[str]]:
    """What AiiDA's session sends meanwhile."""
    engine = get_manager().get_profile_storage().get_session().get_bind()
    sent: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def theirs(node: Dict) -> Any:
    """What somebody else wrote."""
    return node.base.extras.get("theirs", None)


def test_a_callback_reads_a_row_once(stored: Dict) -> None:
    """Whatever it reads of it, and though it writes in between."""

    def work() -> list[str]:
        with statements() as sent:
            assert stored.get_dict() == {"a": 1}
            stored.base.extras.set("ours", 1)
            assert stored.get_dict() == {"a": 1}
            assert stored.base.extras.get("ours") == 1
        return sent

    stored.backend.get_session().expire_all()
    (sent,) = callbacks(work)

    verbs = [statement.split()[0] for statement in sent]
    assert (verbs.count("SELECT"), verbs.count("UPDATE")) == (1, 1), sent


def test_the_next_callback_sees_what_others_wrote(
    stored: Dict, others: Callable[[str], object]
) -> None:
    """A callback that was scheduled after the read runs after the row was forgotten, a transaction or not."""

    def within() -> Any:
        with stored.backend.transaction():
            return theirs(stored)

    found = callbacks(
        lambda: theirs(stored),
        lambda: others("one"),
        lambda: theirs(stored),
        lambda: (others("two"), theirs(stored))[1],
        within,
        lambda: (theirs(stored), others("three"))[0],
        within,
    )

    assert [found[0], *found[2:]] == [None, "one", "two", "two", "two", "three"]


def test_a_write_keeps_what_others_wrote_before_the_callback(
    stored: Dict, others: Callable[[str], object]
) -> None:
    """AiiDA writes all extras of a node at once."""
    callbacks(
        lambda: theirs(stored),
        lambda: others("kept"),
        lambda: stored.base.extras.set_many({"ours": 1, "more": 2}),
    )

    assert theirs(stored) == "kept"
    assert stored.base.extras.get("more") == 2


def test_a_group_leaves_the_session_as_it_was(
    stored: Dict, others: Callable[[str], object]
) -> None:
    """AiiDA keeps rows while it adds to a group, and sets back what it found."""
    group = Group(label=f"byoc-{stored.uuid}").store()
    callbacks(lambda: group.add_nodes(stored))
    storage = stored.backend

    assert theirs(stored) is None
    others("new")
    storage.get_session().commit()
    # AiiDA relies here on the last commit, which makes all rows unknown.
    with storage.transaction():
        assert theirs(stored) == "new"


def test_no_transaction_outlives_its_callback(stored: Dict) -> None:
    """One that does keeps dead rows alive, and locks."""

    def is_open() -> bool:
        return bool(stored.backend.get_session().in_transaction())

    def work() -> bool:
        stored.get_dict()
        return is_open()

    stored.backend.get_session().expire_all()
    assert callbacks(work, is_open) == [True, False]


def test_a_callback_that_takes_long_asks_again(
    stored: Dict, others: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be waiting for that very change."""
    monkeypatch.setattr(sessions, "_MOST_SECONDS", 0.0)

    def work() -> list[Any]:
        before = theirs(stored)
        others("new")
        return [before, theirs(stored)]

    assert callbacks(work) == [[None, "new"]]


def test_a_loop_that_stopped_keeps_nothing(stored: Dict, others: Callable[[str], object]) -> None:
    """It may stop before the callback that forgets, and another, or none, be the next to read."""

    def read_and_stop() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(lambda: (theirs(stored), loop.stop()))
        loop.run_forever()
        loop.close()

    read_and_stop()
    others("one")
    assert callbacks(lambda: theirs(stored)) == ["one"]
    read_and_stop()
    others("two")
    assert theirs(stored) == "two"


def test_without_an_event_loop_every_read_asks(
    stored: Dict, others: Callable[[str], object]
) -> None:
    """As in AiiDA's own storage."""
    assert theirs(stored) is None
    others("new")
    assert theirs(stored) == "new"


def test_a_query_that_is_read_whole_has_no_savepoint(stored: Dict) -> None:
    """One that hands on its rows has: its caller may write meanwhile."""

    def ask(answer: Callable[[QueryBuilder], Any]) -> tuple[Any, list[str]]:
        query = QueryBuilder().append(Dict, filters={"id": stored.pk})
        with statements() as sent:
            return answer(query), sent

    (whole, sent), (rows, one_by_one) = callbacks(
        lambda: ask(lambda query: query.all(flat=True)),
        lambda: ask(lambda query: [row for (row,) in query.iterall()]),
    )

    assert [node.uuid for node in whole] == [node.uuid for node in rows] == [stored.uuid]
    assert not [each for each in sent if "SAVEPOINT" in each]
    assert [each for each in one_by_one if "SAVEPOINT" in each]


def test_no_circle_is_looked_for_through_a_node_that_is_not_stored(stored: Dict) -> None:
    """There is none."""
    calculation = CalculationNode()
    with statements() as sent:
        calculation.base.links.add_incoming(stored, LinkType.INPUT_CALC, "input")
    assert not [each for each in sent if "RECURSIVE" in each]

    calculation.store()
    created = Dict({}).store()
    created.base.links.add_incoming(calculation, LinkType.CREATE, "output")
    with statements() as sent, pytest.raises(ValueError, match="cycle"):
        stored.base.links.add_incoming(calculation, LinkType.CREATE, "circle")
    assert [each for each in sent if "RECURSIVE" in each]


def test_a_setting_is_one_statement(profile: Any) -> None:
    """AiiDA notes the time of each transition in one."""
    assert profile.storage_backend == "byoc.psql_dos"
    storage = get_manager().get_profile_storage()
    for value in ("first", "second"):
        with statements() as sent:
            storage.set_global_variable("byoc-test", value, "some words")
        assert len([each for each in sent if "db_dbsetting" in each]) == 1, sent
        assert storage.get_global_variable("byoc-test") == value
    with pytest.raises(ValueError, match="already exists"):
        storage.set_global_variable("byoc-test", "third", overwrite=False)


def test_a_file_is_opened_without_asking_whether_it_is_there(
    profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loose or packed; and one that is not there is told."""
    assert profile.storage_backend == "byoc.psql_dos"
    repository = get_manager().get_profile_storage().get_repository()
    keys = [repository.put_object_from_filelike(io.BytesIO(content)) for content in (b"a", b"b")]
    monkeypatch.setattr(type(repository), "has_objects", None)
    for pack in (
        lambda: None,
        repository._container.pack_all_loose,
        repository._container.clean_storage,
    ):
        pack()
        assert [repository.get_object_content(key) for key in keys] == [b"a", b"b"]
        assert [repository.get_object_hash(key) for key in keys] == keys
    with pytest.raises(FileNotFoundError, match="0000"), repository.open("0" * 64):
        pass
    with pytest.raises(FileNotFoundError, match="0000"):
        repository.get_object_hash("0" * 64)
