"""The witness marks each process of ours that changes, in AiiDA's own commit, and is in nobody's way."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from aiida.orm import CalcJobNode, WorkChainNode

from aiida_byoc.database.connection import connect
from aiida_byoc.events import witness
from lab import postgres

OURS = "aiida.workflows:byoc.job"
BLIND = """
CREATE OR REPLACE FUNCTION byoc.mark_process() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'
"""


@pytest.fixture
def database(node: Any) -> psycopg.Connection:
    """The node's database with the witness in place, and no marks."""
    witness.install(node.connection)
    node.connection.execute("DELETE FROM byoc.witness")
    connection: psycopg.Connection = node.connection
    return connection


@pytest.fixture
def chain(database: psycopg.Connection) -> WorkChainNode:
    """A work chain of ours."""
    return WorkChainNode(process_type=OURS).store()


def marked(database: psycopg.Connection) -> list[int]:
    """Whom the marks are about, in their order."""
    return [row[0] for row in database.execute("SELECT process_pk FROM byoc.witness ORDER BY mark")]


def test_changes_of_state_and_pauses_are_marked(
    database: psycopg.Connection, chain: WorkChainNode
) -> None:
    """One mark for each, and none for anything else that AiiDA writes."""
    seen = []
    for change in (
        lambda: chain.set_process_state("running"),
        lambda: chain.set_process_state("running"),
        lambda: chain.set_process_status("reading"),
        chain.pause,
        chain.unpause,
        lambda: chain.set_exit_status(0),
        lambda: chain.base.extras.set("some", "thing"),
        lambda: chain.set_process_state("finished"),
        chain.seal,
    ):
        before = len(marked(database))
        change()
        seen.append(len(marked(database)) - before)

    assert seen == [1, 0, 0, 1, 1, 0, 0, 1, 0]
    assert set(marked(database)) == {chain.pk}


def test_processes_of_others_are_not_marked(database: psycopg.Connection) -> None:
    """Their owners may use the same profile."""
    for kind, name in (
        (WorkChainNode, "workflows:quantum.base"),
        (CalcJobNode, "calculations:core.add"),
    ):
        kind(process_type=f"aiida.{name}").store().set_process_state("finished")

    assert marked(database) == []


def test_a_mark_is_in_the_commit_of_its_change(
    database: psycopg.Connection, chain: WorkChainNode
) -> None:
    """A change that is taken back leaves none."""

    def fail() -> None:
        with chain.backend.transaction():
            chain.set_process_state("excepted")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert marked(database) == []


def test_a_witness_that_cannot_mark_stops_nobody(
    node: Any, database: psycopg.Connection, chain: WorkChainNode
) -> None:
    """An error in a trigger would take AiiDA's commit back."""
    node.alter("ALTER TABLE byoc.witness RENAME TO hidden")
    try:
        chain.set_process_state("finished")
    finally:
        node.alter("ALTER TABLE byoc.hidden RENAME TO witness")

    row = database.execute(
        "SELECT attributes ->> 'process_state' FROM db_dbnode WHERE id = %s", (chain.pk,)
    ).fetchone()
    assert row == ("finished",)


def test_a_change_waits_for_no_sweep(
    database: psycopg.Connection, chain: WorkChainNode, profile: Any
) -> None:
    """Somebody who is at the process's marks, or has just deleted them, keeps no worker waiting."""
    chain.set_process_state("running")
    with connect(profile.storage_config, application="test") as other, other.transaction():
        other.execute("SELECT FROM byoc.witness FOR UPDATE")
        witness.forget(other, [mark for each in witness.marks(other).values() for mark in each])
        with database.transaction():
            database.execute("SET LOCAL lock_timeout = '2s'")
            database.execute(
                "UPDATE db_dbnode SET attributes = attributes || '{\"paused\": true}' WHERE id = %s",
                (chain.pk,),
            )

    assert marked(database) == [chain.pk]


def test_only_marks_that_were_seen_are_forgotten(
    database: psycopg.Connection, chain: WorkChainNode
) -> None:
    """A change while the sweep is at work is looked at next time."""
    chain.set_process_state("running")
    seen = witness.marks(database)
    chain.set_process_state("finished")

    witness.forget(database, seen[chain.pk])

    assert marked(database) == [chain.pk]


def test_installing_again_changes_nothing(database: psycopg.Connection) -> None:
    """It happens at each full pass."""
    assert (witness.check(database), witness.install(database)) == (None, False)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("DROP TRIGGER byoc_witness ON db_dbnode", "missing"),
        ("ALTER TABLE db_dbnode DISABLE TRIGGER byoc_witness", "disabled"),
        ("ALTER TABLE db_dbnode ENABLE REPLICA TRIGGER byoc_witness", "disabled"),
        ("COMMENT ON TRIGGER byoc_witness ON db_dbnode IS 'older'", "another version"),
        (BLIND, "another version"),
    ],
)
def test_a_witness_that_does_not_see_is_noticed_and_mended(
    node: Any, database: psycopg.Connection, chain: WorkChainNode, damage: str, complaint: str
) -> None:
    """AiiDA's migrations may make the table anew; restores may leave triggers off."""
    node.alter(damage)
    found = witness.check(database)
    node.alter("SELECT 1")
    mended = witness.install(database)
    chain.set_process_state("running")

    assert found is not None
    assert complaint in found
    assert (mended, witness.check(database), marked(database)) == (True, None, [chain.pk])


@pytest.mark.usefixtures("database")
def test_a_database_whose_triggers_do_not_fire_is_noticed(
    profile: Any, server: postgres.Postgres
) -> None:
    """Only a superuser can set that, and take it back."""
    setting = f"ALTER ROLE {server.user} {{}} session_replication_role"
    with psycopg.connect(server.superuser_dsn, autocommit=True) as administrator:
        administrator.execute(f"{setting.format('SET')} = replica")
        try:
            with connect(profile.storage_config, application="test") as connection:
                found = witness.check(connection)
        finally:
            administrator.execute(setting.format("RESET"))

    assert found is not None
    assert "session_replication_role" in found
