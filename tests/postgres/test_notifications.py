"""Whoever waits for work hears of it from the commit that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest

from aiida_byoc.database.notifications import LAUNCHER, RELAY, wait
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, report, walk

AGES = 100.0
"""Seconds that nobody waits here who is woken."""
LAST = "that was all"

Act = Callable[[psycopg.Connection], object]


@pytest.fixture
def notified(open_connection: Connect) -> Callable[[Act], set[str]]:
    """The channels that are notified by what is done with a connection."""

    def of(act: Act) -> set[str]:
        ear, other = open_connection(), open_connection()
        for channel in (RELAY, LAUNCHER):
            ear.execute(f"LISTEN {channel}".encode())
        act(other)
        other.execute("SELECT pg_notify(%s, %s)", (RELAY, LAST))
        heard: set[str] = set()
        for each in ear.notifies(timeout=AGES):
            if each.payload == LAST:
                return heard
            heard.add(each.channel)
        raise AssertionError("PostgreSQL notifies nobody")

    return of


def test_a_job_that_comes_is_to_be_told_and_launched(notified: Callable[[Act], set[str]]) -> None:
    assert notified(accept) == {RELAY, LAUNCHER}


def test_news_of_a_job_are_to_be_told(
    connection: psycopg.Connection, notified: Callable[[Act], set[str]]
) -> None:
    job = accept(connection)

    assert notified(lambda other: walk(other, job, "launched", "queued", "running")) == {RELAY}


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_who_ends_makes_room(
    connection: psycopg.Connection, notified: Callable[[Act], set[str]], end: str
) -> None:
    job = accept(connection)
    walk(connection, job, "launched", "queued", "running")

    assert notified(lambda other: report(other, job, end)) == {RELAY, LAUNCHER}


@pytest.mark.parametrize("there", ["DELETE FROM byoc.image_pull", "DELETE FROM byoc.input_fetch"])
def test_what_a_job_waited_for_is_there(
    connection: psycopg.Connection, notified: Callable[[Act], set[str]], there: LiteralString
) -> None:
    connection.execute(
        "INSERT INTO byoc.image_pull (digest, repository, max_mib) VALUES ('sha256:0', 'tool', 1)"
    )
    job = accept(connection)
    connection.execute(
        "INSERT INTO byoc.input_fetch (submission_id, sha256, url) VALUES (%s, '0', 'https://there')",
        (job,),
    )

    assert notified(lambda other: other.execute(there)) == {LAUNCHER}


def test_what_is_not_committed_notifies_nobody(notified: Callable[[Act], set[str]]) -> None:
    def in_vain(other: psycopg.Connection) -> None:
        with other.transaction(force_rollback=True):
            accept(other)

    assert notified(in_vain) == set()


def test_who_waits_is_woken_once_however_much_there_is(
    connection: psycopg.Connection, open_connection: Connect
) -> None:
    ear = open_connection()
    assert not wait(ear, LAUNCHER, 0)

    for number in range(20):
        accept(connection, f"job-{number}")

    assert wait(ear, LAUNCHER, AGES)
    # They may come in several parts, but not in as many.
    assert sum(wait(ear, LAUNCHER, 0) for _ in range(20)) < 10
