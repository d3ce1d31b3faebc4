"""What ended long ago is forgotten if the owner wants it; what was promised to its sender stays true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiida_byoc.commands import ledger, retention
from aiida_byoc.commands.retention import forget, forget_by_policy
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events.redelivery import replay
from aiida_byoc.events.relay import deliver
from tests.builders import KEY, NOW, POLICY, cancel, placement, submit
from tests.eventually import eventually
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, served, walk
from tests.postgres.product import Product
from tests.postgres.reading import row, stream

LONG_AGO = 1
"""In days; the examples are of a time long past."""


def ended(connection: psycopg.Connection, job: str = "job-1") -> str:
    """A job that has run its course, all of it delivered."""
    submission = accept(connection, job, key=f"{KEY}-{job}")
    walk(connection, submission, "launched", "queued", "running", "succeeded")
    deliver(connection, Product())
    return submission


def seqs(connection: psycopg.Connection, submission: str) -> list[int]:
    query = "SELECT seq FROM byoc.event WHERE submission_id = %s ORDER BY seq"
    return [seq for (seq,) in connection.execute(query, (submission,))]


def test_of_an_old_job_the_claim_and_the_last_event_stay(connection: psycopg.Connection) -> None:
    submission = ended(connection)
    before = row(connection)
    shown = view(connection, "acme", "job-1")

    assert not forget(connection, LONG_AGO)

    kept = row(connection)
    assert before is not None
    assert kept == {**before, "command": None, "placement": None, "snapshot": {}}
    assert seqs(connection, submission) == [5]
    assert view(connection, "acme", "job-1") == shown


def test_i4_a_forgotten_job_answers_as_ever(connection: psycopg.Connection) -> None:
    """The same key hears the same, another payload is refused, and the job's id stays taken."""
    command = submit(deadline=(NOW + timedelta(hours=1)).isoformat())

    def order(key: str = KEY, **changes: object) -> object:
        changed = command.model_copy(update=changes)
        return ledger.accept(connection, changed, key, place=lambda _: placement(), now=NOW)

    first = order()
    walk(connection, first[0].submission_id, "launched", "failed")  # type: ignore[index]
    stopped, _ = ledger.cancel(connection, cancel(), serve=served, now=NOW)
    deliver(connection, Product())
    forget(connection, LONG_AGO)

    assert order() == (first[0], True)  # type: ignore[index]
    with pytest.raises(ProblemError, match="idempotency-key-reused"):
        order(job_id="job-2")
    with pytest.raises(ProblemError, match="job-id-conflict"):
        order(key=f"{KEY}-other")
    later = NOW + timedelta(days=400)
    assert ledger.cancel(connection, cancel(), serve=served, now=later) == (stopped, True)


@pytest.mark.parametrize(
    "why",
    ["UPDATE byoc.stream SET acked_seq = 4", "UPDATE byoc.stream SET quarantine = '{}'"],
    ids=["undelivered", "quarantined"],
)
def test_what_the_product_lacks_is_kept(connection: psycopg.Connection, why: str) -> None:
    submission = ended(connection)
    connection.execute(why)

    forget(connection, LONG_AGO)

    assert seqs(connection, submission) == [1, 2, 3, 4, 5]


def test_what_lives_and_what_ended_lately_is_kept(connection: psycopg.Connection) -> None:
    living, lately = accept(connection, "living"), ended(connection, "lately")
    walk(connection, living, "launched")
    deliver(connection, Product())
    connection.execute(
        "UPDATE byoc.event SET occurred_at = now() - interval '23 hours' WHERE submission_id = %s AND seq = 5",
        (lately,),
    )

    forget(connection, LONG_AGO)

    assert seqs(connection, living) == [1, 2]
    assert seqs(connection, lately) == [1, 2, 3, 4, 5]


def test_a_cancel_of_a_job_that_nobody_submitted_is_never_forgotten(
    connection: psycopg.Connection,
) -> None:
    ledger.cancel(connection, cancel(), serve=served, now=NOW)

    forget(connection, LONG_AGO)

    with pytest.raises(ProblemError, match="job-cancelled"):
        accept(connection)


def test_a_replay_sends_the_last_event_of_what_is_forgotten(
    connection: psycopg.Connection,
) -> None:
    """Its `seq` is what it was, and the stream comes to rest behind it."""
    submission = ended(connection)
    forget(connection, LONG_AGO)

    sent = replay(connection)
    product = Product()
    while deliver(connection, product):
        pass

    assert (sent.jobs, sent.events) == (1, 1)
    assert product.order(submission) == [5]
    assert stream(connection, submission)["acked_seq"] == 5


def test_forgetting_goes_in_small_steps_and_leaves_alone_what_is_in_use(
    connection: psycopg.Connection, open_connection: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions = [ended(connection, f"job-{number}") for number in range(5)]
    monkeypatch.setattr(retention, "_JOBS_AT_ONCE", 2)
    other = open_connection()
    with other.transaction():
        other.execute(
            "SELECT FROM byoc.stream WHERE submission_id = %s FOR UPDATE", (submissions[0],)
        )

        steps = [forget(connection, LONG_AGO) for _ in range(3)]

    assert steps == [True, True, False]
    assert [len(seqs(connection, each)) for each in submissions] == [5, 1, 1, 1, 1]


def test_an_agent_that_dies_while_it_forgets_has_forgotten_nothing(
    connection: psycopg.Connection, storage: dict[str, Any], tmp_path: Path
) -> None:
    """Killed between the deletions and their commit; the next round does it all."""
    submission = ended(connection)
    before = row(connection)
    (tmp_path / "retention.deleted").touch()

    code = (
        "from aiida_byoc.commands.retention import forget\n"
        "from aiida_byoc.database.connection import connect\n"
        f"forget(connect({storage!r}, application='test'), {LONG_AGO})\n"
    )
    environment = {**os.environ, "BYOC_CRASH_DIR": str(tmp_path)}
    died = subprocess.run([sys.executable, "-c", code], env=environment, check=False)

    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "retention.deleted.hit").exists()
    assert row(connection) == before
    assert seqs(connection, submission) == [1, 2, 3, 4, 5]
    # PostgreSQL may still be ending the dead one's session, whose locks are skipped.
    eventually(
        lambda: forget(connection, LONG_AGO) or seqs(connection, submission) == [5], "forgetting"
    )


@pytest.mark.parametrize(
    ("section", "left"), [("", 5), ("[retention]\ndays = 1\n", 1), ("[retention]\ndays = 0\n", 5)]
)
def test_the_policy_says_how_long(
    connection: psycopg.Connection, tmp_path: Path, section: str, left: int
) -> None:
    """By default everything is kept; so it is while the policy cannot be read."""
    submission = ended(connection)
    policy = tmp_path / "policy.toml"
    policy.write_text(f"{POLICY}\n{section}")

    assert forget_by_policy(connection, policy) > 0

    assert len(seqs(connection, submission)) == left
