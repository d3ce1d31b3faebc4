"""The launcher between tenants: in turn by what they have under way, and quick however many jobs wait."""

from __future__ import annotations

import time
from statistics import median

import psycopg

from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.quotas import Quota, Quotas
from tests.postgres.jobs import accept, report

_MANY = """
INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint, command, placement,
                      trace_id, accepted_at, deadline, node_seconds, state)
SELECT gen_random_uuid(), %(tenant)s, 'lab', 'm' || number, 'key-' || number, 'f',
       '{"workload": {"kind": "container"}}', '{"image_digest": "sha256:d"}', repeat('a', 32),
       '2020-01-01'::timestamptz + number * interval '1 millisecond', %(deadline)s, 60, 'accepted'
FROM generate_series(1, %(count)s) AS number
"""


def many(
    connection: psycopg.Connection, tenant: str, count: int, *, deadline: str | None = None
) -> None:
    """Let so many jobs of a tenant wait, all older than any other."""
    connection.execute(_MANY, {"tenant": tenant, "count": count, "deadline": deadline})
    connection.execute("ANALYZE byoc.job")


def launch(
    connection: psycopg.Connection, limits: Limits, quotas: Quotas | None = None, **how: bool
) -> str | None:
    """Launch the job whose turn it is; return its tenant."""
    with connection.transaction():
        job = next_job(connection, limits, quotas, **how)
        if job is None:
            return None
        connection.execute(
            "UPDATE byoc.job SET state = 'launched' WHERE submission_id = %s",
            (job["submission_id"],),
        )
        return str(job["tenant_id"])


def end(connection: psycopg.Connection, tenant: str) -> None:
    """One of the tenant's launched jobs ends."""
    connection.execute(
        "UPDATE byoc.job SET state = 'failed' WHERE submission_id = (SELECT submission_id FROM byoc.job"
        " WHERE tenant_id = %s AND state = 'launched' ORDER BY accepted_at LIMIT 1)",
        (tenant,),
    )


def test_ten_thousand_waiting_jobs_do_not_delay_anothers_first(
    connection: psycopg.Connection,
) -> None:
    many(connection, "acme", 10_000)
    limits = Limits(active_jobs=5)
    assert [launch(connection, limits) for _ in range(6)] == ["acme"] * 5 + [None]

    accept(connection, "first", tenant_id="globex")
    accept(connection, "second", tenant_id="globex")
    end(connection, "acme")

    assert launch(connection, limits) == "globex"
    assert launch(connection, limits) is None
    end(connection, "acme")
    assert launch(connection, limits) == "globex"


def test_nor_do_ten_thousand_that_can_only_be_failed(connection: psycopg.Connection) -> None:
    many(connection, "acme", 10_000, deadline="2020-01-02T00:00:00Z")
    accept(connection, "first", tenant_id="globex")

    assert launch(connection, Limits()) == "globex"
    assert launch(connection, Limits(), hopeless_first=True) == "acme"


def test_what_can_only_be_failed_has_its_turn(connection: psycopg.Connection) -> None:
    """Although others could be launched for ever."""
    many(connection, "acme", 10)
    late = accept(connection, "late", tenant_id="globex")
    connection.execute("UPDATE byoc.job SET deadline = now() WHERE submission_id = %s", (late,))

    with connection.transaction():
        job = next_job(connection, Limits(), hopeless_first=True)

    assert job is not None
    assert job["job_id"] == "late"


def test_tenants_share_by_weight(connection: psycopg.Connection) -> None:
    for tenant in ("acme", "globex", "hooli"):
        many(connection, tenant, 100)
    quotas = Quotas(tenants={"acme": Quota(weight=3), "hooli": Quota(weight=0.5)})

    turns = [launch(connection, Limits(active_jobs=45), quotas) for _ in range(45)]

    assert [turns.count(tenant) for tenant in ("acme", "globex", "hooli")] == [30, 10, 5]
    assert set(turns[:3]) == {"acme", "globex", "hooli"}


def test_nobody_starves_whatever_the_weights(connection: psycopg.Connection) -> None:
    """On a node with room for one, jobs of each come in turn."""
    quotas = Quotas(tenants={"acme": Quota(weight=1000), "hooli": Quota(weight=0.01)})
    for number in range(10):
        for tenant in ("acme", "globex", "hooli"):
            submission = accept(connection, f"job-{number}", tenant_id=tenant)
            connection.execute(
                "UPDATE byoc.job SET accepted_at = accepted_at + %s * interval '1 second'"
                " WHERE submission_id = %s",
                (number, submission),
            )

    turns = []
    for _ in range(30):
        tenant = launch(connection, Limits(active_jobs=1), quotas)
        assert tenant is not None
        turns.append(tenant)
        end(connection, tenant)

    for begin in range(0, 30, 3):
        assert set(turns[begin : begin + 3]) == {"acme", "globex", "hooli"}


def test_a_tenants_own_bound_counts_before_everybodys(connection: psycopg.Connection) -> None:
    for tenant in ("acme", "globex", "hooli"):
        many(connection, tenant, 10)
    limits = Limits(active_jobs=100, active_jobs_per_tenant=1)
    quotas = Quotas(running=2, tenants={"acme": Quota(running=4), "hooli": Quota(weight=2)})

    turns = []
    while tenant := launch(connection, limits, quotas):
        turns.append(tenant)

    assert [turns.count(tenant) for tenant in ("acme", "globex", "hooli")] == [4, 2, 2]


def test_a_job_that_waits_for_something_lets_the_tenants_next_pass(
    connection: psycopg.Connection,
) -> None:
    first = accept(connection, "first")
    connection.execute(
        "INSERT INTO byoc.input_fetch (submission_id, sha256, url) VALUES (%s, 'a', 'b')", (first,)
    )
    accept(connection, "second")

    with connection.transaction():
        job = next_job(connection, Limits())

    assert job is not None
    assert job["job_id"] == "second"


def test_no_more_are_in_slurm_than_the_site_takes(connection: psycopg.Connection) -> None:
    first = accept(connection, "first")
    accept(connection, "second")
    limits = Limits(slurm_jobs=1)

    assert launch(connection, limits) == "acme"
    assert launch(connection, limits) is None
    connection.execute("UPDATE byoc.job SET state = 'failed' WHERE submission_id = %s", (first,))
    assert launch(connection, limits) == "acme"


def test_an_array_is_as_many_jobs_in_slurm_as_it_has_elements(
    connection: psycopg.Connection,
) -> None:
    accept(connection, "first")
    accept(connection, "second")
    connection.execute("UPDATE byoc.job SET placement = placement || '{\"elements\": 5}'")

    assert launch(connection, Limits(slurm_jobs=5)) == "acme"
    assert launch(connection, Limits(slurm_jobs=5)) is None
    assert launch(connection, Limits(slurm_jobs=6)) == "acme"


def test_what_is_being_cancelled_is_left_alone(
    connection: psycopg.Connection, storage: dict[str, object]
) -> None:
    """Another tenant's job comes instead, and nobody waits."""
    from aiida_byoc.database.connection import connect

    oldest = accept(connection, "oldest")
    accept(connection, "other", tenant_id="globex")
    connection.execute(
        "UPDATE byoc.job SET accepted_at = '2020-01-01' WHERE submission_id = %s", (oldest,)
    )
    with connect(storage, application="test") as cancelling, cancelling.transaction():
        report(cancelling, oldest, "cancelled")
        assert launch(connection, Limits()) == "globex"
    assert launch(connection, Limits()) is None


def test_a_hundred_thousand_waiting_jobs_cost_milliseconds(connection: psycopg.Connection) -> None:
    """Ten tenants have 10,000 waiting each, and 200 jobs are under way."""
    for number in range(10):
        many(connection, f"tenant-{number}", 10_000)
    connection.execute(
        "UPDATE byoc.job SET state = 'running' WHERE submission_id IN"
        " (SELECT submission_id FROM byoc.job ORDER BY job_id LIMIT 200)"
    )
    connection.execute("ANALYZE byoc.job")

    for active_jobs, has_room in ((1000, True), (200, False)):
        took = []
        for number in range(20):
            began = time.perf_counter()
            with connection.transaction(force_rollback=True):
                job = next_job(
                    connection, Limits(active_jobs=active_jobs), hopeless_first=number % 2 == 0
                )
            took.append(time.perf_counter() - began)
            assert (job is not None) is has_room
        assert median(took) < 0.1
