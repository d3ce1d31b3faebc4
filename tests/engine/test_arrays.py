"""Arrays: many tasks, a container each, as one job of AiiDA and one of Slurm. Real Slurm, real containers."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida.orm import CalcJobNode
from click.testing import CliRunner

from aiida_byoc.arrays.rules import Arrays
from aiida_byoc.cli import byoc
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job.array_task import directory_of
from aiida_byoc.workflows import killed
from tests.engine.driving import OUT_OF_TIME, Underway, nothing_starts, squeue
from tests.engine.test_cancel import cancel


def array(script: str, rows: list[list[str]], cpu: int = 2, **workload: Any) -> dict[str, Any]:
    """A job whose tasks run the script with their row as `$1`, `$2`, …"""
    columns = [f"p{number}" for number in range(len(rows[0]))]
    return {
        "workload": {
            "kind": "array",
            "argv": ["sh", "-c", script, "sh", *(f"{{{name}}}" for name in columns)],
            "tasks": {"columns": columns, "rows": rows},
            **workload,
        },
        "resource_shape": {"cpu": cpu, "memory_mib": 128, "walltime_seconds": 120},
    }


def attempts(chain: Any) -> list[CalcJobNode]:
    return sorted(chain.called, key=lambda each: each.pk)


def table(attempt: CalcJobNode, tmp_path: Path) -> list[sqlite3.Row]:
    """What became of each task, by an attempt's table."""
    path = tmp_path / f"{attempt.pk}.sqlite"
    path.write_bytes(attempt.outputs.tasks.get_content(mode="rb"))
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    return connection.execute("SELECT * FROM task ORDER BY number").fetchall()


def shown(node: Any, submission: str, *options: str) -> Any:
    """Number and state of each task, as an operator has them shown."""
    job = node.events(submission)[0]["job_id"]
    said = CliRunner().invoke(byoc, ["jobs", "tasks", "--tenant", "acme", job, "--json", *options])
    assert said.exit_code == 0, said.output
    return [(row["number"], row["state"]) for row in json.loads(said.output)]


def test_twenty_tasks_are_one_job(node: Any, tmp_path: Path) -> None:
    """Packed by five into four elements; each task's end, usage and outputs are in one table."""
    rows = [[f"v {number}; $(id)", str(number)] for number in range(20)]
    submission = node.accept(
        **array(
            'echo "$1" > out.txt; cat given.txt >> out.txt',
            rows,
            pack=5,
            outputs=[{"name": "out.txt"}],
            inputs=[{"name": "given.txt", "text": "given\n"}],
        )
    )

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    (attempt,) = attempts(chain)
    assert "#SBATCH --array=0-3\n" in attempt.base.repository.get_object_content("_aiidasubmit.sh")
    found = table(attempt, tmp_path)
    assert [row["state"] for row in found] == ["succeeded"] * 20
    assert all(row["exit_code"] == 0 and row["cpu_seconds"] > 0 for row in found)
    assert len({row["outputs"] for row in found}) == 20
    kept = Path(attempt.get_remote_workdir(), directory_of(7), "outputs", "out.txt")
    assert kept.read_text() == "v 7; $(id)\ngiven\n"
    told = node.events(submission)[-1]
    assert told["state"] == "succeeded"
    assert told["result"]["tasks"] == {
        "total": 20,
        "succeeded": 20,
        "failed": 0,
        "interrupted": 0,
        "first_failed": [],
    }
    assert (told["progress"]["step"], told["progress"]["steps"]) == (20, 20)
    assert node.states(submission)[:3] == ["accepted", "launched", "queued"]


def test_how_far_short_tasks_are_is_told_while_they_run(node: Any) -> None:
    """None of their elements lives as long as a second."""
    rows = [[str(number)] for number in range(8)]
    submission = node.accept(
        **array("sleep 0.3", rows, cpu=1, pack=1), placed={"arrays": Arrays(at_a_time=1)}
    )

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    told = [each for each in node.events(submission) if each["state"] == "running"]
    steps = [each["progress"]["step"] for each in told if "progress" in each]
    assert 0 < steps[0] < len(rows)


def test_a_task_that_fails_fails_the_array_and_alone_is_run_again(
    node: Any, tmp_path: Path
) -> None:
    """The second attempt has one element, for the one task; the table tells of both attempts."""
    fails_once = 'test "$1" != bad || test "$BYOC_ATTEMPT" = 2'
    rows = [["good"], ["bad"], ["good"], ["good"]]
    submission = node.accept(
        **array(fails_once, rows, pack=2), retry_policy={"max_attempts": 2, "on": ["tasks_failed"]}
    )

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    first, second = attempts(chain)
    assert first.exit_status == 410
    assert "Of 4 tasks 1 failed" in first.exit_message
    assert "--array=0-0\n" in second.base.repository.get_object_content("_aiidasubmit.sh")
    assert [row["attempt"] for row in table(second, tmp_path)] == [1, 2, 1, 1]
    events = node.events(submission)
    recovery = next(event["recovery"] for event in events if "recovery" in event)
    assert recovery["action"] == "runs the tasks that have not succeeded"
    assert events[-1]["result"]["tasks"]["succeeded"] == 4


def test_how_long_tasks_took_decides_how_those_left_are_dealt_out(node: Any) -> None:
    """Nobody said it: at first there is an element for each that may run; of such short tasks one does for all."""
    fails_once = 'test "$1" = good || test "$BYOC_ATTEMPT" = 2'
    submission = node.accept(
        **array(fails_once, [["good"], *[["bad"]] * 7], cpu=1),
        placed={"arrays": Arrays(at_a_time=4)},
        retry_policy={"max_attempts": 2, "on": ["tasks_failed"]},
    )

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    scripts = [
        each.base.repository.get_object_content("_aiidasubmit.sh") for each in attempts(chain)
    ]
    asked = [re.findall("--array=(.*)\n", each) for each in scripts]
    assert asked == [["0-3"], ["0-0"]]


def test_the_end_names_the_tasks_that_failed(node: Any) -> None:
    rows = [[str(number)] for number in range(6)]
    submission = node.accept(**array('echo "cannot do $1" >&2; exit $1', rows, pack=6))

    chain = node.run(submission)

    assert chain.exit_status == 410
    told = node.events(submission)[-1]
    assert (told["state"], told["error"]["code"]) == ("failed", "tasks_failed")
    assert told["result"]["exit_code"] == 5
    assert told["result"]["tasks"]["failed"] == 5
    assert told["result"]["tasks"]["first_failed"][0] == {
        "number": 1,
        "id": "1",
        "state": "failed",
        "exit_code": 1,
        "message": "cannot do 1",
    }


def test_an_element_that_is_killed_loses_only_what_it_had_not_ended(
    node: Any, tmp_path: Path
) -> None:
    """Somebody cancels one element behind the node's back: the other's tasks and its own first stay done."""
    script = 'test "$1" != stays || test "$BYOC_ATTEMPT" = 2 || exec sleep 60'
    submission = node.accept(**array(script, [["a"], ["stays"], ["b"], ["c"]], cpu=1, pack=2))
    job = Underway(node, submission)
    calculation = job.until(lambda: job.process.node.called and job.process.node.called[0], "one")
    place = job.until(calculation.get_remote_workdir, "a directory")
    begun = Path(place, directory_of(1), "work")
    job.until(begun.exists, "the task that stays")
    job.until(lambda: Path(place, in_job.ELEMENTS, "1", in_job.ENDED).exists(), "the other element")
    slurm = calculation.get_job_id().partition("/")[0]

    subprocess.run(["scancel", f"{slurm}_0"], check=True)
    chain = job.finish()

    (attempt,) = attempts(chain)
    assert [row["state"] for row in table(attempt, tmp_path)] == [
        "succeeded",
        "interrupted",
        "succeeded",
        "succeeded",
    ]
    told = node.events(submission)[-1]
    assert told["error"]["code"] == "killed"
    assert "3 of 4 tasks succeeded" in told["error"]["message"]


def test_an_element_that_runs_out_of_time_is_told_and_only_what_it_had_not_ended_run_again(
    node: Any, scontrol: Callable[..., str], tmp_path: Path
) -> None:
    script = 'test "$1" != stays || test "$BYOC_ATTEMPT" = 2 || exec sleep 300'
    submission = node.accept(
        **array(script, [["a"], ["stays"], ["b"], ["c"]], cpu=1, pack=3),
        retry_policy={"max_attempts": 2, "on": ["timeout"]},
    )
    job = Underway(node, submission)
    (calculation,) = job.until(lambda: attempts(job.process.node), "an attempt")
    place = job.until(calculation.get_remote_workdir, "a directory")
    job.until(Path(place, directory_of(1), "work").exists, "the task that stays")

    scontrol("update", f"jobid={calculation.get_job_id().partition('/')[0]}_0", OUT_OF_TIME)
    chain = job.finish(120)

    assert chain.is_finished_ok, chain.exit_message
    first, second = attempts(chain)
    assert "ran out of time" in first.exit_message
    assert "2 of 4 tasks succeeded" in first.exit_message
    states = [row["state"] for row in table(first, tmp_path)]
    assert states == ["succeeded", "interrupted", "interrupted", "succeeded"]
    assert [row["attempt"] for row in table(second, tmp_path)] == [1, 2, 2, 1]


def test_an_element_that_runs_out_of_memory_has_more_the_next_time(
    node: Any, tmp_path: Path
) -> None:
    hog = "python3 -c 'import time; block = bytearray(200 * 2**20); time.sleep(60)'"
    script = f'test "$1" != hog || test "$BYOC_ATTEMPT" = 2 || {hog}'
    submission = node.accept(
        **array(script, [["a"], ["hog"], ["b"]], cpu=1, pack=3),
        retry_policy={"max_attempts": 2, "on": ["oom"]},
    )

    chain = Underway(node, submission).finish(120)

    assert chain.is_finished_ok, chain.exit_message
    first, second = attempts(chain)
    assert "ran out of memory" in first.exit_message
    assert [each.get_option("max_memory_kb") for each in (first, second)] == [128 << 10, 256 << 10]
    attempt, *_ = [row["attempt"] for row in table(second, tmp_path)]
    assert attempt == 1


def test_a_cancel_ends_the_whole_array_and_what_its_tasks_left_is_kept(
    node: Any, tmp_path: Path
) -> None:
    script = 'test "$1" != stays || exec sleep 60; exit $1'
    rows = [["0"], ["3"], ["stays"], ["0"]]
    submission = node.accept(**array(script, rows, cpu=1, pack=2))
    job = Underway(node, submission)
    (calculation,) = job.until(lambda: attempts(job.process.node), "an attempt")
    place = job.until(calculation.get_remote_workdir, "a directory")
    job.until(Path(place, directory_of(2), "work").exists, "the task that stays")
    job.until(Path(place, in_job.ELEMENTS, "0", in_job.ENDED).exists, "the other element's end")

    cancel(node, submission)
    job.stop()

    assert squeue(f"--name=byoc-{submission}-1", "--states=running,pending") == ""
    assert job.last["state"] == "cancelled"
    tasks = job.last["result"]["tasks"]
    counts = {name: tasks[name] for name in ("succeeded", "failed", "interrupted", "cancelled")}
    assert counts == {"succeeded": 1, "failed": 1, "interrupted": 0, "cancelled": 2}
    assert job.last["progress"]["fraction"] == 1.0
    (kept,) = [link.node for link in calculation.inputs.tasks.base.links.get_outgoing().all()][1:]
    assert kept.is_sealed
    assert not killed.is_killed_array(calculation)
    states = [row["state"] for row in table(kept, tmp_path)]
    assert states == ["succeeded", "failed", "cancelled", "cancelled"]
    assert shown(node, submission, "--failed") == [(1, "failed")]


def test_of_an_array_that_never_began_all_tasks_are_cancelled(
    node: Any, scontrol: Callable[..., str]
) -> None:
    submission = node.accept(**array("true", [["0"], ["0"]]))
    with nothing_starts(scontrol):
        job = Underway(node, submission)
        job.until_state("queued")
        cancel(node, submission)
        job.stop()

    assert job.last["state"] == "cancelled"
    assert job.last["result"]["tasks"]["cancelled"] == 2
    assert shown(node, submission) == [(0, "cancelled"), (1, "cancelled")]


def test_what_earlier_attempts_ended_is_kept_though_the_newest_never_began(
    node: Any, scontrol: Callable[..., str], tmp_path: Path
) -> None:
    script = 'until test -e go; do sleep 0.05; done; test "$1" = good'
    submission = node.accept(
        **array(script, [["good"], ["bad"]]),
        retry_policy={"max_attempts": 2, "on": ["tasks_failed"]},
    )
    job = Underway(node, submission)
    job.until_state("running")
    (calculation,) = attempts(job.process.node)
    works = [Path(calculation.get_remote_workdir(), directory_of(n), "work") for n in (0, 1)]
    job.until(lambda: all(each.exists() for each in works), "both tasks")
    with nothing_starts(scontrol):
        for each in works:
            (each / "go").touch()
        job.until(lambda: job.last["attempt"] == 2 and job.last["state"] == "queued", "another")
        cancel(node, submission)
        job.stop()

    counts = job.last["result"]["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["cancelled"]) == (1, 0, 1)
    assert shown(node, submission) == [(0, "succeeded"), (1, "cancelled")]


def test_a_cluster_that_cannot_be_asked_delays_the_end_only_so_long(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(attempt: CalcJobNode, *_: Any, **__: Any) -> None:
        asked.append(attempt.pk)
        raise OSError("the cluster is away")

    monkeypatch.setattr(killed, "keep", fail)
    submission = node.accept(**array("exec sleep 60", [["0"]]))
    job = Underway(node, submission)
    job.until_state("running")

    cancel(node, submission)
    job.stop()

    assert (len(asked), len(set(asked))) == (3, 1)
    assert job.last["state"] == "cancelled"


def test_at_most_so_many_elements_run_at_a_time(node: Any) -> None:
    submission = node.accept(
        **array("true", [[str(n)] for n in range(6)], pack=1),
        placed={"arrays": Arrays(at_a_time=2)},
    )

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    (attempt,) = attempts(chain)
    assert "--array=0-5%2\n" in attempt.base.repository.get_object_content("_aiidasubmit.sh")


def test_the_tasks_are_shown_by_page(node: Any) -> None:
    rows = [[str(number % 2)] for number in range(4)]
    submission = node.accept(**array("exit $1", rows, pack=4))
    node.run(submission)

    assert shown(node, submission, "--failed") == [(1, "failed"), (3, "failed")]
    assert shown(node, submission, "--limit", "2") == [(0, "succeeded"), (1, "failed")]
    assert shown(node, submission, "--after", "1") == [(2, "succeeded"), (3, "failed")]


@pytest.mark.parametrize(
    ("rows", "state", "says"),
    [
        ([["a"], ["b"]], "succeeded", None),
        ([["a"], []], "failed", "row 1 has no value in column 0, p0"),
    ],
    ids=["whole", "ragged"],
)
def test_tasks_may_come_from_a_file(
    node: Any, rows: list[list[str]], state: str, says: str | None
) -> None:
    """The agent fetches it as it does any input; what it holds is looked at before Slurm is asked for anything."""
    content = json.dumps({"rows": rows}).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    file = {"url": "https://data.example/t.json", "sha256": sha256}
    tasks = {"columns": ["p0"], "count": 2, "file": file}
    submission = node.accept(**array('test -n "$1"', [[""]], tasks=tasks))
    node.settings.fetched_files.keep("acme", sha256, [content], lane="1", most=len(content))
    node.connection.execute("DELETE FROM byoc.input_fetch WHERE submission_id = %s", (submission,))

    node.run(submission)

    told = node.events(submission)[-1]
    assert told["state"] == state
    if says is not None:
        assert told["error"]["code"] == "inputs_invalid"
        assert says in told["error"]["message"]
