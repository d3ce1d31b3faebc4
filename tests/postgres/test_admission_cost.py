"""What the launcher's question costs: pages, not time, however many jobs wait, and whatever the statistics say."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from tests.postgres.pages import touched

WAITING = 20_000
MOST_PAGES = 150
"""With ten jobs it is about 40; all jobs that wait are on more than 1,000."""

_MANY = """
INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint, command, placement,
                      trace_id, accepted_at, node_seconds, state)
SELECT gen_random_uuid(), %(tenant)s, 'lab', %(prefix)s || number, %(prefix)s || number, 'f',
       '{"workload": {"kind": "container"}}', '{"image_digest": "sha256:d", "pull": {"repository": "r"}}',
       repeat('a', 32), '2020-01-01'::timestamptz + number * interval '1 millisecond', 60,
       %(state)s::byoc.execution_state
FROM generate_series(1, %(count)s) AS number
"""
_PULL = "INSERT INTO byoc.image_pull (digest, repository, max_mib) VALUES ('sha256:d', 'r', 1)"
_FETCH = """
INSERT INTO byoc.input_fetch (submission_id, sha256, url)
SELECT submission_id, 'f', 'https://example.org/' FROM byoc.job ORDER BY accepted_at DESC LIMIT %s
"""


def many(
    connection: psycopg.Connection, count: int, *, state: str = "accepted", tenant: str = "acme"
) -> None:
    values = {"tenant": tenant, "count": count, "state": state, "prefix": f"{uuid.uuid4().hex}-"}
    connection.execute(_MANY, values)


def never_looked_at(connection: psycopg.Connection) -> None:
    many(connection, WAITING)


def up_to_date(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute("ANALYZE")


def beside_another_tenant(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute("ANALYZE")
    many(connection, 10, tenant="globex")
    connection.execute("UPDATE byoc.job SET accepted_at = now() WHERE tenant_id = 'globex'")


def since_few_waited(connection: psycopg.Connection) -> None:
    many(connection, 10)
    connection.execute("ANALYZE")
    many(connection, WAITING)


def when_none_waited(connection: psycopg.Connection) -> None:
    many(connection, WAITING, state="succeeded")
    connection.execute("ANALYZE")
    many(connection, WAITING)


def when_all_that_ended_waited(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute("ANALYZE")
    connection.execute("UPDATE byoc.job SET state = 'succeeded' WHERE accepted_at < now()")
    connection.execute("VACUUM byoc.job")
    many(connection, 10)


def while_files_are_fetched(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute("ANALYZE")
    connection.execute(_FETCH, (WAITING // 10,))


def with_files_that_are_known(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute(_FETCH, (WAITING // 10,))
    connection.execute("ANALYZE")


def when_all_waited_for_files(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute(_FETCH, (WAITING,))
    connection.execute("ANALYZE")
    connection.execute("DELETE FROM byoc.input_fetch")


def when_all_waited_for_an_image(connection: psycopg.Connection) -> None:
    many(connection, WAITING)
    connection.execute(_PULL)
    connection.execute("ANALYZE")
    connection.execute("DELETE FROM byoc.image_pull")


@pytest.mark.parametrize(
    "prepare",
    [
        never_looked_at,
        up_to_date,
        beside_another_tenant,
        since_few_waited,
        when_none_waited,
        when_all_that_ended_waited,
        while_files_are_fetched,
        with_files_that_are_known,
        when_all_waited_for_files,
        when_all_waited_for_an_image,
    ],
)
@pytest.mark.parametrize("hopeless_first", [False, True])
def test_the_question_for_the_next_job_costs_the_same_however_many_wait(
    connection: psycopg.Connection,
    prepare: Callable[[psycopg.Connection], None],
    *,
    hopeless_first: bool,
) -> None:
    prepare(connection)
    connection.execute("SET statement_timeout = '20s'")
    before = touched(connection)
    with connection.transaction():
        job = next_job(connection, Limits(), hopeless_first=hopeless_first)
    assert job is not None
    assert touched(connection) - before < MOST_PAGES


def test_where_nobody_waits_any_longer_next_to_nothing_is_read(
    connection: psycopg.Connection,
) -> None:
    many(connection, WAITING)
    connection.execute("ANALYZE")
    connection.execute("UPDATE byoc.job SET state = 'succeeded'")
    connection.execute("VACUUM byoc.job")

    before = touched(connection)
    with connection.transaction():
        assert next_job(connection, Limits()) is None

    assert touched(connection) - before < MOST_PAGES // 5


def test_the_question_is_not_compiled_and_the_launch_goes_on_as_before(
    connection: psycopg.Connection,
) -> None:
    """Its connection is AiiDA's: what the node's own are opened with does not hold there."""
    many(connection, 10)
    connection.execute("UPDATE byoc.job SET state = 'running' WHERE job_id LIKE '%-1'")
    with psycopg.connect(connection.info.dsn, options="-c jit=on") as aiidas:
        with aiidas.transaction():
            assert next_job(aiidas, Limits(active_jobs=1)) is None
            assert settings(aiidas) == ["off"] * 4
        with aiidas.transaction():
            assert next_job(aiidas, Limits()) is not None
            assert settings(aiidas) == ["on"] * 4


def settings(connection: psycopg.Connection) -> list[str]:
    names = ["enable_bitmapscan", "enable_seqscan", "enable_sort", "jit"]
    query = "SELECT setting FROM pg_settings WHERE name = ANY(%s)"
    return [setting for (setting,) in connection.execute(query, (names,))]
