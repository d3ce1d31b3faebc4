"""What a heartbeat costs: pages, not time, however many jobs there have been, and whatever the statistics say."""

from __future__ import annotations

import psycopg
import pytest

from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.node import NodeSettings
from benchmarks import bulk
from tests.postgres.jobs import accept, walk
from tests.postgres.pages import touched

ENDED = 10_000
MOST_PAGES = 80
"""With one job it is about 30; the events of those that ended are on more than 1,000."""


@pytest.mark.parametrize("statistics", ["SELECT", "VACUUM ANALYZE"])
def test_a_heartbeat_costs_the_same_however_many_jobs_have_ended(
    connection: psycopg.Connection, settings: NodeSettings, statistics: str
) -> None:
    model = accept(connection, "model")
    walk(connection, model, "launched", "queued", "running", "succeeded")
    connection.execute("UPDATE byoc.stream SET acked_seq = latest_seq")
    for part in range(100):
        bulk.copy(connection, model, f"ended-{part}-", ENDED // 100, told=True)
    connection.execute(statistics)
    for number in range(3):
        accept(connection, f"waits-{number}")
    walk(connection, accept(connection, "runs"), "launched", "queued", "running")
    pulse = Pulse(settings)

    before = touched(connection)
    told = pulse.heartbeat(connection)

    assert touched(connection) - before < MOST_PAGES
    assert (told.jobs_active, told.jobs_waiting, told.jobs_running) == (4, 3, 1)
    assert told.events_undelivered == 3 + 4
    assert told.oldest_undelivered_seconds
