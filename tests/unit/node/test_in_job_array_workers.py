"""The processes that run an element's tasks, one after the other: no task gets anything of the one before it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiida_byoc.runtimes import Launch, in_job
from aiida_byoc.runtimes.in_job import packed
from aiida_byoc.runtimes.in_job.array_worker import Worker
from tests.eventually import eventually
from tests.unit.node.inside import Job
from tests.unit.node.test_in_job_array import array, cancel, element, results, start

WAIT = 'touch "$2/$1"; until test -e "$2/go-$1"; do sleep 0.01; done'


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job", words=packed.START)


@pytest.fixture
def worker(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """One whose tasks wait for a file."""
    array(job, WAIT, [("a", "b")])
    monkeypatch.chdir(job.directory)
    worker = Worker(json.loads(Path(in_job.SPECIFICATION).read_text()), 0, [])
    yield worker
    worker.close()
    os.waitpid(worker.pid, 0)


def order(worker: Worker, number: int, place: Path) -> None:
    worker.task = [number, f"t{number}", [str(number), str(place)]]
    worker.order()


def state(worker: Worker) -> str:
    """Of the task that the worker reports next."""
    said = None
    while said is None:
        said = worker.report()
    found: str = json.loads(said)["state"]
    return found


def test_a_signal_for_a_task_that_has_ended_does_not_reach_the_next(
    worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "go-0").touch()
    order(worker, 0, tmp_path)
    assert state(worker) == "succeeded"
    order(worker, 1, tmp_path)
    eventually((tmp_path / "1").exists, "the second task")

    for received in (signal.SIGTERM, signal.SIGKILL) * 20:
        worker.tell(0, received)
    (tmp_path / "go-1").touch()

    assert state(worker) == "succeeded"


def test_a_signal_for_a_task_that_was_not_taken_up_yet_is_kept_for_it(
    worker: Worker, tmp_path: Path
) -> None:
    order(worker, 0, tmp_path)
    eventually((tmp_path / "0").exists, "the first task")

    worker.tell(1, signal.SIGTERM)
    order(worker, 1, tmp_path)
    (tmp_path / "go-0").touch()

    assert state(worker) == "succeeded"
    assert state(worker) == "interrupted"


def test_sigterm_is_for_the_task_that_runs(worker: Worker, tmp_path: Path) -> None:
    """As Slurm sends it to all processes of a job, and the kernel when the element has died."""
    order(worker, 0, tmp_path)
    eventually((tmp_path / "0").exists, "the first task")
    os.kill(worker.pid, signal.SIGTERM)
    assert state(worker) == "interrupted"

    os.kill(worker.pid, signal.SIGTERM)  # for nobody
    (tmp_path / "go-1").touch()
    order(worker, 1, tmp_path)

    assert state(worker) == "succeeded"


def test_what_a_task_has_used_is_its_own(job: Job) -> None:
    heavy = "dd if=/dev/zero of=/dev/null bs=300M count=3"
    array(job, f"test $1 = light || {heavy}", [("heavy",), ("light",)], workers=1)

    assert element(job) == 0

    found = results(job)
    assert found["t0"]["peak_rss_mib"] > 300
    assert found["t1"]["peak_rss_mib"] < 100
    assert found["t0"]["cpu_seconds"] > 2 * found["t1"]["cpu_seconds"] > 0


def test_a_worker_that_is_killed_costs_its_task_alone(job: Job) -> None:
    array(
        job,
        'test "$1" != bad || { kill -9 $PPID; exec sleep 60; }',
        [("a",), ("bad",), ("c",), ("bad",), ("e",)],
        workers=1,
    )

    assert element(job) == 1

    found = results(job)
    states = [found[f"t{n}"]["state"] for n in range(5)]
    assert states == ["succeeded", "interrupted", "succeeded", "interrupted", "succeeded"]
    assert "killed" in found["t1"]["message"]


def test_a_worker_that_breaks_off_costs_its_task_alone(job: Job) -> None:
    """Somebody has put a file where the second task wants a directory in its own."""
    array(job, 'test "$1" != bad || mkdir -p ../../1/work', [("bad",), ("b",), ("c",)], workers=1)

    assert element(job) == 1

    # What has a directory was begun by somebody; nobody but them may say how it ended.
    assert sorted(results(job)) == ["t0", "t2"]


def test_nothing_is_left_of_a_task_whose_worker_is_killed_at_its_start(
    job: Job, tmp_path: Path
) -> None:
    """A runtime that says that it dies with its parent, before it has seen to that."""
    array(
        job,
        'test "$1" != bad || { echo $$ > "$2/pid"; kill -9 $PPID; exec sleep 60; }',
        [("bad", str(tmp_path)), ("b", str(tmp_path))],
        workers=1,
        launch=Launch(programs=["env"], command=["env"], leashed=True),
    )

    assert element(job) == 1

    assert results(job)["t1"]["state"] == "succeeded"
    program = Path("/proc", (tmp_path / "pid").read_text().strip())
    eventually(lambda: not program.exists(), "the end of the program")


def test_a_worker_stays_as_it_is(job: Job) -> None:
    """Of 120 tasks one after the other none leaves a descriptor, or memory, behind."""
    look = "ls /proc/$PPID/fd | wc -l; sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$PPID/status"
    array(job, look, [(str(n),) for n in range(120)], pack=200, workers=1)

    assert element(job) == 0

    seen = [
        tuple(map(int, (job.directory / f"byoc_array/tasks/0/{n}/stdout").read_text().split()))
        for n in range(120)
    ]
    # Threads that carry what this kind of runtime says have theirs, or not yet.
    assert max(seen)[0] - min(seen)[0] < 20
    assert seen[-1][1] - seen[20][1] < 512  # KiB


def test_a_single_task_runs_in_the_elements_own_process(job: Job, tmp_path: Path) -> None:
    """It is cancelled and stopped as any other."""
    script = f'echo "$PPID"; test "$1" = quick || {{ {WAIT}\n}}'
    rows = [("quick", ""), ("a", str(tmp_path)), ("b", str(tmp_path))]
    array(job, script, rows, pack=1, elements=3)

    process = start(job, 0)
    assert process.wait(60) == 0
    assert (job.directory / "byoc_array/tasks/0/0/stdout").read_text() == f"{process.pid}\n"

    process = start(job, 1)
    eventually((tmp_path / "a").exists, "the second task")
    cancel(job, (1, 1))
    assert process.wait(60) == 0
    assert results(job, 1)["t1"]["state"] == "cancelled"

    process = start(job, 2)
    eventually((tmp_path / "b").exists, "the third task")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    assert results(job, 2)["t2"]["state"] == "interrupted"
    *_, last = (job.directory / in_job.ELEMENTS / "2" / in_job.ENDED).read_text().splitlines()
    assert json.loads(last)["failed"] == 0


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_program_that_slurm_signals_first_was_interrupted_all_the_same(
    job: Job, tmp_path: Path, tasks: int
) -> None:
    """Slurm signals the processes of a job one after the other, in whatever order."""
    array(job, 'echo $$ > "$1/$$"; exec sleep 60', [(str(tmp_path),)] * tasks, workers=tasks)
    process = start(job)
    eventually(
        lambda: len([each for each in tmp_path.glob("[0-9]*") if each.read_text()]) == tasks, "all"
    )
    programs = [int(each.name) for each in tmp_path.glob("[0-9]*")]

    for program in programs:
        os.kill(program, signal.SIGTERM)
    eventually(lambda: not any(Path("/proc", str(each)).exists() for each in programs), "their end")
    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 1
    assert {each["state"] for each in results(job).values()} == {"interrupted"}


def test_a_program_that_somebody_else_ends_has_failed(job: Job) -> None:
    array(job, "kill -TERM $$", [("a",), ("b",)])

    assert element(job) == 1

    assert {each["state"] for each in results(job).values()} == {"failed"}
