"""I1, I2: a launcher that is killed at any moment leaves exactly one work chain per launched job, and no orphan.

And one that waits hears of what comes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.builders import POLICY
from tests.eventually import eventually

KILLS = 110
POINTS = ("launch.created", "launch.committed")
EACH_POINT = 5

# Forks a launcher for each line it reads, and kills it so many seconds after its start; `-` lets it live until it dies.
FORKS = """
import logging, os, signal, sys, time
from pathlib import Path
from aiida import load_profile
from aiida_byoc.commands import launching
from aiida_byoc.node import NodeSettings

settings = NodeSettings.load(Path(sys.argv[1]))
launching._IDLE_SECONDS = float(sys.argv[2])
profile = load_profile()
profile.set_process_controller("byoc.postgres", {})
profile.set_option("daemon.worker_process_slots", 100000)
print("ready", flush=True)
for line in sys.stdin:
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        logging.getLogger("aiida_byoc").setLevel(logging.INFO)
        logging.getLogger("aiida_byoc").addHandler(logging.StreamHandler(os.fdopen(say, "w")))
        launching.launch_forever(settings)
        os._exit(0)
    os.close(say)
    with os.fdopen(said) as log:
        for entry in log:
            if "event=launcher_started" in entry:
                break
        began = time.monotonic()
        if line.strip() != "-":
            time.sleep(float(line))
            os.kill(pid, signal.SIGKILL)
        log.read()
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)
"""

# What each job must look like, whenever its launcher died: not launched at all, or launched whole.
WAITING = ("accepted", 1, False, 0, 0, 0)
LAUNCHED = ("launched", 2, True, 1, 1, 1)
TRUTH = """
SELECT job.state::text, job.seq, job.dispatched_at IS NOT NULL, count(node.id),
       count(node.id) FILTER (WHERE node.attributes ? 'checkpoints' AND node.id = job.process_pk),
       count(task.task_id)
FROM byoc.job LEFT JOIN db_dbnode AS node ON node.label = 'byoc:' || job.submission_id
    LEFT JOIN byoc.task ON task.process_pk = node.id
WHERE job.submission_id = ANY (%s::uuid[]) GROUP BY job.submission_id
"""
STRAYS = """
SELECT count(*) FROM db_dbnode AS node
WHERE node.process_type LIKE '%byoc.job' AND NOT EXISTS (SELECT FROM byoc.job WHERE process_pk = node.id)
"""

WAITING_PROCESSES = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'byoc-launcher-waits' AND query LIKE 'LISTEN%'
"""


class Launchers:
    """Launchers, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(self, seconds: float | None) -> tuple[int, float]:
        """Start one and kill it after a while, or let it live until it dies; return its exit status and its age."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("-\n" if seconds is None else f"{seconds:.3f}\n")
        self._process.stdin.flush()
        status, age = self._process.stdout.readline().split()
        return int(status), float(age)


@pytest.fixture
def launchers(node: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Launchers]:
    """Real launchers on the profile, which share one interpreter's imports, and look every second or so often."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY + "[limits]\nactive_jobs = 50000\n")
    settings = node.settings.model_copy(update={"policy_file": policy})
    settings.save(tmp_path / "node.toml")
    (tmp_path / "crash").mkdir()
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path / "node.toml")),
            str(getattr(request, "param", 1.0)),
        ],
        env={**os.environ, "BYOC_CRASH_DIR": str(tmp_path / "crash")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield Launchers(process)
    process.kill()
    process.communicate()
    node.connection.execute("DELETE FROM byoc.task")
    node.connection.execute("UPDATE byoc.job SET state = 'cancelled' WHERE state = 'launched'")


def truth(node: Any, submissions: list[str]) -> Counter[tuple[Any, ...]]:
    """How many jobs look how."""
    return Counter(node.connection.execute(TRUTH, (submissions,)).fetchall())


@pytest.mark.parametrize("launchers", [60.0], indirect=True)
def test_a_job_that_comes_while_the_launcher_waits_is_launched_before_it_looks(
    node: Any, launchers: Launchers, tmp_path: Path
) -> None:
    """It dies once it has launched it, long before it would look by itself."""
    with ThreadPoolExecutor() as pool:
        life = pool.submit(launchers.live, None)
        eventually(
            lambda: node.connection.execute(WAITING_PROCESSES).fetchone() == (1,),
            "the launcher to wait",
            seconds=30,
        )
        (tmp_path / "crash" / "launch.committed").touch()
        submission = node.accept()
        status, _ = life.result(30)

    assert status == -9
    assert truth(node, [submission]) == {LAUNCHED: 1}


def test_killed_launchers_leave_one_work_chain_per_job_and_no_orphan(
    node: Any, launchers: Launchers, tmp_path: Path
) -> None:
    """Ledger, work chain, checkpoint, task and event are one commit; who comes after goes on with the rest."""
    chance = random.Random(20260215)  # noqa: S311  (moments, not secrets)
    strays = node.connection.execute(STRAYS).fetchone()
    submissions: list[str] = []

    def accept(jobs: int) -> None:
        submissions.extend(node.accept() for _ in range(jobs))

    def die_at(point: str) -> tuple[int, float]:
        accept(1)
        (tmp_path / "crash" / point).touch()
        return launchers.live(None)

    _, one_launch = die_at("launch.committed")  # so long does it take on this machine, now
    deaths: Counter[int] = Counter()
    for _ in range(KILLS):
        accept(3)
        deaths[launchers.live(chance.uniform(0, 3 * one_launch))[0]] += 1
    for point in POINTS * EACH_POINT:
        deaths[die_at(point)[0]] += 1

    seen = truth(node, submissions)
    assert deaths == {-9: KILLS + len(POINTS) * EACH_POINT}
    assert set(seen) <= {WAITING, LAUNCHED}
    assert seen[LAUNCHED] >= KILLS / 4, "too few launches to say anything"
    assert node.connection.execute(STRAYS).fetchone() == strays

    eventually(
        lambda: launchers.live(2) and not truth(node, submissions)[WAITING],
        "the rest to be launched",
        seconds=300,
    )
    assert truth(node, submissions) == {LAUNCHED: len(submissions)}
