"""Work chains never take the slots that their own calculations need, whatever the policy allows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.eventually import eventually

JOBS = 6
SLOTS = 4
SECONDS = 120
OPTION = "daemon.worker_process_slots"
CRASH_LAUNCHER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'byoc-launcher%'
"""


@pytest.fixture
def few_slots(lab: dict[str, Any], database: psycopg.Connection) -> Iterator[None]:
    """One worker with room for four processes, behind the back of `init`; as it was afterwards."""

    def verdi(*words: str) -> str:
        return subprocess.run(
            ["verdi", "-p", lab["node"]["profile"], *words],
            env={**os.environ, **lab["node"]["environment"]},
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        ).stdout

    def restart(slots: str, workers: str) -> None:
        verdi("daemon", "stop")
        verdi("config", "set", OPTION, slots)
        assert database.execute(CRASH_LAUNCHER).fetchall()
        verdi("daemon", "start", workers)

    before = verdi("config", "get", OPTION).strip()
    restart(str(SLOTS), "1")
    yield
    restart(before, "1")


@pytest.mark.usefixtures("few_slots")
def test_jobs_beyond_the_slots_wait_in_the_ledger_and_all_end(
    acme: Any, database: psycopg.Connection
) -> None:
    """The policy allows 200 jobs; six at once would leave no calculation a slot, for ever."""
    commands = [acme.command("sleep", "1") for _ in range(JOBS)]
    for command in commands:
        assert acme.submit(command).status_code == 202
    names = [command["job_id"] for command in commands]

    def states() -> list[str]:
        rows = database.execute("SELECT state::text FROM byoc.job WHERE job_id = ANY(%s)", (names,))
        return [state for (state,) in rows]

    def have_ended() -> bool:
        now = states()
        assert len(now) - now.count("accepted") - now.count("succeeded") <= SLOTS // 2, now
        return now.count("succeeded") == JOBS

    eventually(have_ended, "every job to end", seconds=SECONDS)
