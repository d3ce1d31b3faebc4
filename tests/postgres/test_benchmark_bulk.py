"""The benchmarks' bulk is what a node would have written itself."""

from __future__ import annotations

from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts import ExecutionEvent
from aiida_byoc.contracts.validation import validated
from aiida_byoc.events.relay import deliver
from benchmarks import bulk
from benchmarks.rows.growth import Taker
from tests.postgres.jobs import accept, walk

UNTOLD = "SELECT sum(latest_seq - acked_seq) FROM byoc.stream"


def model(connection):
    submission = accept(connection, "model")
    walk(connection, submission, "launched", "queued", "running", "succeeded")
    return submission


def test_copies_are_valid_jobs_and_events(connection):
    bulk.copy(connection, model(connection), "copy-", 3, told=True)

    shown = [view(connection, "acme", f"copy-{n}").job for n in (1, 2, 3)]
    bodies = [row[0] for row in connection.execute("SELECT body FROM byoc.event")]

    assert [(each.state, each.seq) for each in shown] == [("succeeded", 5)] * 3
    assert len({each.submission_id for each in shown}) == 3
    assert len({validated(ExecutionEvent, body, what="event").id for body in bodies}) == 4 * 5


def test_copies_that_are_untold_are_the_relays(connection):
    bulk.copy(connection, model(connection), "copy-", 19, told=False)

    assert deliver(connection, Taker(), lane="bench") == 100
    assert connection.execute(UNTOLD).fetchone() == (0,)


def test_what_is_withdrawn_is_not_launched(connection):
    bulk.waiting(connection, model(connection), 3)
    with connection.transaction():
        waited = next_job(connection, Limits())

    bulk.withdraw(connection)

    with connection.transaction():
        assert waited is not None
        assert next_job(connection, Limits()) is None
