"""I8, I9: a worker that dies after any commit of a job's life leaves a state that the last event tells."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.manage import get_manager
from aiida.orm import load_node

from aiida_byoc.events.reconcile import Sweep
from tests.engine.driving import RUN_LOG

KILLS = int(os.environ.get("BYOC_COMMITS", "16"))
"""After about so many commits a worker is killed, one job for each; after all of them with a large number."""

# Forks a worker for each line it reads. It sends itself `send`, works until all of `wait` have ended, or kills itself
# after its commit number `fatal`; says what `truth` answered after each commit that changed anything.
WORKERS = """
import json, os, signal, sys, uuid
import psycopg
from aiida import load_profile
from aiida.manage import get_manager
from sqlalchemy.engine.default import DefaultDialect
from aiida_byoc.brokers import worker
from aiida_byoc.database.connection import connect
from aiida_byoc.workflows.job import JobWorkChain

commit = DefaultDialect.do_commit

def live(send, wait, fatal=0, truth=None):
    commits = []

    def counted(dialect, connection):
        asked = connection.cursor().execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        (is_change,) = asked.fetchone()
        commit(dialect, connection)
        if not is_change:
            return
        commits.append(watch.execute(truth, (wait,)).fetchall() if truth else None)
        if len(commits) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    worker._me = uuid.uuid4()
    runner = get_manager().create_daemon_runner()
    get_manager().set_runner(runner)
    watch = connect(profile.storage_config, application="test")

    def look():
        ended = "SELECT count(*) FROM db_dbnode WHERE id = ANY(%s) AND attributes ? 'sealed'"
        if watch.execute(ended, (wait,)).fetchone()[0] == len(wait):
            print(json.dumps({"commits": commits}), flush=True)
            os._exit(0)
        runner.loop.call_later(0.1, look)

    DefaultDialect.do_commit = counted
    for pk in send:
        runner.controller.continue_process(pk, nowait=False, no_reply=True)
    runner.loop.call_soon(look)
    runner.start()

sys.argv = ["verdi", "daemon", "worker"]
profile = load_profile()
profile.set_process_controller("byoc.postgres", {})
print("{}", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        live(**json.loads(line))
    _, status = os.waitpid(pid, 0)
    if status:
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)
"""

# What was told beside what there is.
TRUTH = """
SELECT array_agg(event.seq ORDER BY event.seq) = array(SELECT generate_series(1, job.seq)),
       (array_agg(event.body #>> '{data,state}' ORDER BY event.seq))[job.seq] = job.state::text, job.state::text,
       chain.attributes ->> 'process_state' = 'finished', attempt.attributes ->> 'scheduler_state',
       chain.attributes ->> 'process_state', attempt.attributes ->> 'process_state', attempt.attributes ->> 'state'
FROM byoc.job JOIN byoc.event USING (submission_id) JOIN db_dbnode AS chain ON chain.id = job.process_pk
LEFT JOIN db_dblink AS link ON link.input_id = chain.id AND link.type = 'call_calc'
LEFT JOIN db_dbnode AS attempt ON attempt.id = link.output_id
WHERE chain.id = ANY(%s) GROUP BY job.submission_id, chain.id, attempt.id
"""
TOLD = {
    (False, None): {"launched"},
    (False, "queued"): {"queued"},
    (False, "running"): {"running"},
    (False, "done"): {"queued", "running"},
    (True, "done"): {"succeeded"},
}
"""Whether the work chain has ended, and Slurm's state in the attempt's node → what may be told last."""


STORIES = [
    ["accepted", "launched", "queued", "succeeded"],
    ["accepted", "launched", "queued", "running", "succeeded"],
]


class Workers:
    """Workers, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(self, **life: Any) -> dict[str, Any]:
        """Let one live; return what is known of its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(life) + "\n")
        self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        """What was said next."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said


@pytest.fixture
def workers(node: Any) -> Iterator[Workers]:
    """Real workers on the profile, with its broker, which share one interpreter's imports."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        started = Workers(process)
        assert started.heard() == {}
        yield started
        process.kill()
    node.connection.execute("DELETE FROM byoc.task")


def test_a_worker_that_dies_after_any_commit_leaves_what_was_told(
    node: Any, workers: Workers
) -> None:
    """And the next one ends the job: one attempt, one execution, no event twice, nothing for the sweep to repair."""
    sweep = Sweep(get_manager().get_profile_storage())
    sweep.full()
    sweep.marked()
    submissions: list[str] = []

    def launch() -> int:
        submissions.append(node.accept("sh", "-c", RUN_LOG))
        return int(node.launch(submissions[-1]))

    chains = [launch()]
    seen = workers.live(send=chains, wait=chains, truth=TRUTH)["commits"]
    assert [(number, rows) for number, rows in enumerate(seen, 1) if not agree(rows)] == []

    killed_after = fatal_ones(seen)
    for fatal in killed_after:
        chains.append(launch())
        end = workers.live(send=chains[-1:], wait=chains[-1:], fatal=fatal)
        assert end == {"status": -9} or fatal > len(seen) - 3, end
        rows = node.connection.execute(TRUTH, (chains[-1:],)).fetchall()
        assert agree(rows), (fatal, rows)

    assert "commits" in workers.live(send=[], wait=chains)
    stories = {
        fatal: node.events(submission)
        for fatal, submission in zip([0, *killed_after], submissions, strict=True)
    }
    assert {
        fatal: [(event["state"], event.get("error")) for event in story]
        for fatal, story in stories.items()
        if [event["state"] for event in story] not in STORIES
    } == {}
    assert {pk: runs(pk) for pk in chains} == {pk: [1] for pk in chains}
    assert (sweep.marked(), sweep.full()) == (0, 0)


def agree(rows: list[Any]) -> bool:
    """Whether ledger, events and nodes of the one job say the same."""
    if len(rows) != 1:
        return False
    are_contiguous, is_last, state, has_ended, slurm, *_ = rows[0]
    return are_contiguous and is_last and state in TOLD.get((has_ended, slurm), ())


def fatal_ones(seen: list[Any]) -> list[int]:
    """The numbers of the commits that changed a state or stage, and some of those between."""
    changes = {
        number
        for number, (before, after) in enumerate(itertools.pairwise(seen), 2)
        if before != after
    }
    rest = [number for number in range(1, len(seen) + 1) if number not in changes]
    more = max(1, KILLS - len(changes))
    return sorted(changes | set(rest[:: max(1, len(rest) // more)]))


def runs(pk: int) -> list[int]:
    """How often each attempt's container ran."""
    logs = [Path(each.get_remote_workdir()) / "work" / "runs" for each in load_node(pk).called]
    return [len(log.read_text().splitlines()) for log in logs]
