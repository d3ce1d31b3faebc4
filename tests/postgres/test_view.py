"""What a node tells of itself and of a job: live, and to the job's own tenant alone."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.agent.inventory import Inventory
from aiida_byoc.commands import ledger
from aiida_byoc.commands.draining import set_draining
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import redelivery
from aiida_byoc.events.relay import deliver
from aiida_byoc.node import NodeSettings
from tests.builders import NODE, NOW, cancel
from tests.eventually import eventually
from tests.postgres.jobs import accept, served, walk
from tests.postgres.product import Product


def test_the_view_is_the_newest_event(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    deliver(connection, Product())
    walk(connection, submission, "launched", "queued")
    ledger.cancel(connection, cancel(), serve=served, now=NOW)

    shown = view(connection, "acme", "job-1")

    assert (shown.node_id, shown.job.submission_id) == (NODE, submission)
    assert (shown.job.state, shown.job.seq, shown.delivered_seq) == ("queued", 3, 1)
    assert shown.cancel_requested_at == NOW


@pytest.mark.parametrize(
    ("tenant", "job"), [("globex", "job-1"), ("acme", "job-2"), ("acme", "buried")]
)
def test_i7_what_is_not_the_tenants_is_not_there(
    connection: psycopg.Connection, tenant: str, job: str
) -> None:
    """Another tenant's job, nobody's, and a tombstone look the same."""
    accept(connection)
    ledger.cancel(connection, cancel(job_id="buried"), serve=served, now=NOW)

    with pytest.raises(ProblemError) as caught:
        view(connection, tenant, job)

    assert caught.value.problem() == ProblemError("not-found").problem()


def test_tenants_with_the_same_job_id_see_their_own(connection: psycopg.Connection) -> None:
    ours = accept(connection)
    theirs = accept(connection, tenant_id="globex")

    assert view(connection, "acme", "job-1").job.submission_id == ours
    assert view(connection, "globex", "job-1").job.submission_id == theirs


def test_the_heartbeat_counts_what_is_under_way(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    assert Pulse(settings).heartbeat(connection).jobs_active == 0
    first, second = accept(connection, "job-1"), accept(connection, "job-2")
    deliver(connection, Product())
    walk(connection, first, "launched", "queued", "succeeded")
    walk(connection, second, "launched")
    connection.execute("UPDATE byoc.event SET occurred_at = now() - interval '90 s' WHERE seq = 2")

    beat = Pulse(settings).heartbeat(connection)

    assert (beat.jobs_active, beat.events_undelivered) == (1, 4)
    assert 90 <= beat.oldest_undelivered_seconds < 150
    assert (beat.epoch, beat.jobs_quarantined) == (redelivery.epoch(connection), 0)
    assert beat.queues == ["main", "night"]
    assert set(beat.versions) == {"aiida-byoc", "aiida-core", "python"}


def test_a_quarantined_stream_is_not_counted_as_lag(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    accept(connection)
    connection.execute("""UPDATE byoc.stream SET quarantine = '{"code": "poison"}'""")

    beat = Pulse(settings).heartbeat(connection)

    assert (beat.jobs_active, beat.events_undelivered, beat.jobs_quarantined) == (1, 0, 1)
    assert beat.oldest_undelivered_seconds == 0


def test_the_heartbeat_says_what_the_sweep_repaired(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    """By kind; nothing at all on a node that never needed it."""
    before = Pulse(settings).heartbeat(connection).repairs
    connection.execute("INSERT INTO byoc.repair (kind, count) VALUES ('ended', 2), ('held', 1)")

    assert (before, Pulse(settings).heartbeat(connection).repairs) == ({}, {"ended": 2, "held": 1})


def test_a_node_without_a_policy_offers_nothing_and_lives(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    Path(settings.policy_file).unlink()

    assert Pulse(settings).heartbeat(connection).queues == []


def test_the_heartbeat_says_what_waits_what_runs_and_what_could_be_launched(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    limits = "\n[limits]\nactive_jobs = 5\n"
    settings.policy_file.write_text(settings.policy_file.read_text() + limits)
    jobs = [accept(connection, f"job-{number}") for number in range(4)]
    walk(connection, jobs[1], "launched")
    walk(connection, jobs[2], "launched", "queued")
    walk(connection, jobs[3], "launched", "queued", "running")

    beat = Pulse(settings).heartbeat(connection)

    assert (beat.jobs_active, beat.jobs_waiting, beat.jobs_running) == (4, 3, 1)
    assert (beat.slots_free, beat.draining, beat.partitions) == (2, False, None)
    set_draining(connection, True)
    drained = Pulse(settings).heartbeat(connection)
    assert (drained.slots_free, drained.draining) == (0, True)


def test_the_heartbeat_names_what_does_not_work(
    connection: psycopg.Connection,
    settings: NodeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a word each; nothing on a sound node."""
    assert Pulse(settings).heartbeat(connection).trouble == []
    connection.execute(
        "INSERT INTO byoc.relay_trouble (problem, message) VALUES ('http-401', 'no')"
    )
    connection.execute(
        "INSERT INTO byoc.worker (worker_id, host, boot_id, pid, pid_started, lease_until)"
        " VALUES (gen_random_uuid(), 'h', 'b', 1, 1, now() - interval '1 minute')"
    )
    settings.policy_file.unlink()
    lost = settings.model_copy(update={"product_keys_file": tmp_path / "gone.json"})
    monkeypatch.setenv("PATH", str(tmp_path))
    inventory = Inventory()
    inventory.partitions({"batch"})
    eventually(lambda: inventory.fails, "sinfo to be missed")
    pulse = Pulse(lost, inventory)
    pulse.skew = -45.0

    beat = pulse.heartbeat(connection)

    assert beat.trouble == ["policy", "slurm", "daemon", "relay", "clock", "signatures"]
    assert beat.clock_skew_seconds == -45.0
