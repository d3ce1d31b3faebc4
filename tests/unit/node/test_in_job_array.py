"""The program of one element of an array: its share of the tasks, each once, each with a record of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.arrays.staging import write_tasks
from aiida_byoc.runtimes import Launch, in_job
from aiida_byoc.runtimes.in_job import packed
from aiida_byoc.runtimes.in_job.array_task import directory_of, render
from tests.eventually import eventually
from tests.unit.node.inside import Job

SH = ["/bin/sh", "-c"]


def array(
    job: Job,
    script: str,
    tasks: Sequence[Sequence[str]],
    *,
    pack: int = 100,
    workers: int = 2,
    elements: int = 1,
    **options: Any,
) -> None:
    """Prepare an array whose tasks run the script; the values of a task are its `$1`, `$2`, …"""
    count = max(len(values) for values in tasks)
    place = "." if "rootfs" in options else in_job.WORK  # a container is there already
    job.prepare(
        SH,
        job={
            "array": {
                "pack": pack,
                "workers": workers,
                "total": len(tasks),
                "succeeded": 0,
                "argv": [
                    *([each] for each in [*SH, f"cd {place} && {{ {script}\n}}", "sh"]),
                    *([n] for n in range(count)),
                ],
                "env": {"FIRST": ["<", 0, ">"]},
            }
        },
        **options,
    )
    (job.directory / in_job.ARRAY).mkdir(exist_ok=True)
    (job.directory / in_job.ARRAY_COUNT).write_text(f"{elements}\n")
    with (
        (job.directory / in_job.ARRAY_TASKS).open("wb") as lines,
        (job.directory / in_job.ARRAY_STARTS).open("wb") as starts,
    ):
        all_tasks = ([number, f"t{number}", list(values)] for number, values in enumerate(tasks))
        write_tasks(all_tasks, pack, lines, starts)


def element(job: Job, number: int = 0, array_id: str = "40") -> int:
    """Run an element as Slurm would; return its exit status."""
    process = start(job, number, array_id)
    return process.wait(60)


def start(job: Job, number: int = 0, array_id: str = "40") -> Any:
    return job.go(SLURM_ARRAY_JOB_ID=array_id, SLURM_ARRAY_TASK_ID=str(number))


def results(job: Job, number: int = 0) -> dict[str, dict[str, Any]]:
    """What an element wrote of its tasks, by their ids."""
    place = job.directory / in_job.ELEMENTS / str(number)
    (path,) = (place / name for name in (in_job.RESULTS, in_job.ENDED) if (place / name).exists())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["id"]: line for line in lines if "id" in line}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    directory = tmp_path / "job"
    directory.mkdir()
    return Job(directory, words=packed.START)


def test_every_task_runs_once_with_its_own_values(job: Job) -> None:
    """Values are literal: whatever a shell would make of them, nobody asks one."""
    hostile = "$(id) `id` ; rm -rf / & {0} 'x"
    array(job, 'echo "$1|$FIRST|$BYOC_TASK_ID|$BYOC_TASK_NUMBER"', [("a",), (hostile,), ("c d",)])

    assert element(job) == 0

    said = [
        (job.directory / directory_of(number) / "stdout").read_text().strip() for number in range(3)
    ]
    assert said == ["a|<a>|t0|0", f"{hostile}|<{hostile}>|t1|1", "c d|<c d>|t2|2"]
    found = results(job)
    assert {each["state"] for each in found.values()} == {"succeeded"}
    assert found["t1"]["exit_code"] == 0
    assert found["t1"] == json.loads((job.directory / directory_of(1) / "record.json").read_text())
    assert (job.directory / in_job.ELEMENTS / "0" / in_job.ENDED).exists()
    assert job.news.joinpath("b-1.ended").exists()


def test_each_element_has_its_share(job: Job) -> None:
    array(job, "true", [(str(n),) for n in range(5)], pack=2, elements=3)

    assert [element(job, number) for number in (2, 0, 1)] == [0, 0, 0]

    assert [sorted(results(job, number)) for number in range(3)] == [
        ["t0", "t1"],
        ["t2", "t3"],
        ["t4"],
    ]


def test_as_many_run_at_a_time_as_there_are_workers(job: Job) -> None:
    """Three that wait for each other end only together; a fourth that needs them is not started meanwhile."""
    meet = 'touch "$2/$1"; while [ "$(ls "$2" | grep -c ^m)" -lt 3 ]; do sleep 0.01; done'
    place = job.directory.parent / "meeting"
    place.mkdir()
    array(job, meet, [(f"m{n}", str(place)) for n in range(3)], workers=3)

    assert element(job) == 0


def test_a_failed_task_stops_no_other_and_says_why(job: Job) -> None:
    script = 'echo "bad value" >&2; test "$1" != b'
    array(job, script, [("a",), ("b",), ("c",)], outputs=[])

    assert element(job) == 1

    found = results(job)
    assert [found[f"t{n}"]["state"] for n in range(3)] == ["succeeded", "failed", "succeeded"]
    assert (found["t1"]["exit_code"], found["t1"]["message"]) == (1, "bad value")


def test_what_a_program_says_is_one_printable_line(job: Job) -> None:
    array(job, r"""printf 'one\n\033[31m%0400d\377\n' 7 >&2; exit 1""", [("a",)])

    assert element(job) == 1

    message = results(job)["t0"]["message"]
    assert (len(message), message.isprintable(), message[:5]) == (300, True, " [31m")


def test_promised_outputs_are_measured_for_each_task(job: Job) -> None:
    array(job, 'test "$1" = none || echo "$1" > out.txt', [("a",), ("none",)], outputs=["out.txt"])

    assert element(job) == 1

    found = results(job)
    (output,) = found["t0"]["outputs"]
    assert (output["name"], output["size"]) == ("out.txt", 2)
    assert (job.directory / directory_of(0) / "outputs" / "out.txt").read_text() == "a\n"
    assert found["t1"]["state"] == "failed"
    assert found["t1"]["message"] == "the output out.txt is not there"


def test_inputs_are_there_for_every_task(job: Job, tmp_path: Path) -> None:
    source = tmp_path / "data.txt"
    source.write_text("x")
    given = {"name": "data.txt", "place": "inputs/000", "source": str(source)}
    array(job, "test -e data.txt && cmp ../inputs/000 $1", [(str(source),)] * 2, inputs=[given])

    assert element(job) == 0
    assert source.read_text() == "x"


def test_a_second_copy_of_the_array_runs_nothing(job: Job) -> None:
    array(job, "true", [("a",), ("b",)], pack=1, elements=2)
    assert element(job, 0, array_id="40") == 0

    assert element(job, 1, array_id="41") == in_job.FENCED
    assert element(job, 0, array_id="40") == in_job.FENCED

    assert not (job.directory / in_job.ELEMENTS / "1").exists()
    assert element(job, 1, array_id="40") == 0


def test_a_task_that_an_earlier_attempt_finished_is_not_run_again(job: Job, tmp_path: Path) -> None:
    """Whether or not the node knows of it: the earlier element may have died before it wrote its result down."""
    earlier = tmp_path / "earlier"
    for number, state in ((0, "succeeded"), (1, "failed")):
        place = earlier / directory_of(number)
        place.mkdir(parents=True)
        (place / "record.json").write_text(
            json.dumps({"number": number, "id": f"t{number}", "state": state, "attempt": 1})
        )
    array(
        job,
        'echo "$1" >> "$2"',
        [(str(n), str(tmp_path / "ran")) for n in range(3)],
        earlier=[earlier],
    )

    assert element(job) == 0

    assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2"]
    found = results(job)
    assert (found["t0"]["attempt"], found["t1"]["attempt"]) == (1, 2)


def test_sigterm_ends_what_runs_and_begins_nothing_more(job: Job, tmp_path: Path) -> None:
    array(
        job, 'touch "$2/$1"; exec sleep 60', [(f"r{n}", str(tmp_path)) for n in range(4)], workers=2
    )
    process = start(job)
    eventually(lambda: (tmp_path / "r0").exists() and (tmp_path / "r1").exists(), "two tasks")

    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 1
    assert {name: each["state"] for name, each in results(job).items()} == {
        "t0": "interrupted",
        "t1": "interrupted",
    }
    assert not (tmp_path / "r2").exists()


def cancel(job: Job, *ranges: tuple[int, int]) -> None:
    """As the node does it: the file replaces itself."""
    new = job.directory.parent / "cancelled"
    new.write_text(json.dumps(ranges))
    new.replace(job.directory / in_job.CANCELLED)


def test_tasks_that_were_cancelled_before_are_not_run(job: Job, tmp_path: Path) -> None:
    array(job, 'touch "$2/$1"', [(f"r{n}", str(tmp_path)) for n in range(4)])
    cancel(job, (0, 0), (2, 3))

    assert element(job) == 0

    states = [each["state"] for each in results(job).values()]
    assert sorted(states) == ["cancelled", "cancelled", "cancelled", "succeeded"]
    assert [path.name for path in tmp_path.glob("r?")] == ["r1"]


def test_a_cancel_ends_the_tasks_it_names_and_no_other(job: Job, tmp_path: Path) -> None:
    """Of two that run one is ended, one that waits is never begun; what has ended stays, the rest goes on."""
    stay = 'touch "$2/$1"; case $1 in r0) ;; r1) exec sleep 60 ;; *) until test -e "$2/go"; do sleep 0.01; done ;; esac'
    array(job, stay, [(f"r{n}", str(tmp_path)) for n in range(5)], workers=2)
    process = start(job)
    eventually(lambda: (tmp_path / "r1").exists() and (tmp_path / "r2").exists(), "two tasks")

    cancel(job, (0, 1), (3, 3))
    eventually(lambda: results(job).get("t1", {}).get("state") == "cancelled", "the end of one")
    (tmp_path / "go").touch()

    assert process.wait(30) == 0
    assert {name: each["state"] for name, each in results(job).items()} == {
        "t0": "succeeded",
        "t1": "cancelled",
        "t2": "succeeded",
        "t3": "cancelled",
        "t4": "succeeded",
    }
    assert not (tmp_path / "r3").exists()


def test_a_cancelled_task_that_does_not_listen_is_killed(job: Job, tmp_path: Path) -> None:
    array(
        job,
        'trap "" TERM; touch "$1/begun"; while :; do sleep 0.1; done',
        [(str(tmp_path),)],
    )
    program = job.directory / in_job.PROGRAM / "array.py"
    program.write_text(program.read_text().replace("_KILLED_AFTER = 30", "_KILLED_AFTER = 1"))
    process = start(job)
    eventually((tmp_path / "begun").exists, "the task")

    cancel(job, (0, 0))

    assert process.wait(30) == 0
    assert results(job)["t0"]["state"] == "cancelled"


def test_a_killed_element_leaves_the_records_of_what_it_had_done(job: Job, tmp_path: Path) -> None:
    array(
        job,
        'test "$1" = 0 || { touch "$2/$1"; exec sleep 60; }',
        [(str(n), str(tmp_path)) for n in range(3)],
        workers=1,
    )
    process = start(job)
    eventually((tmp_path / "1").exists, "the second task")

    process.kill()
    process.wait(30)

    records = sorted(
        path.parent.name for path in (job.directory / in_job.ARRAY).rglob("record.json")
    )
    assert "0" in records
    assert list(results(job)) == ["t0"]
    assert not (job.directory / in_job.ELEMENTS / "0" / in_job.ENDED).exists()


def test_one_report_tells_of_all_elements(job: Job) -> None:
    array(
        job,
        'test "$1" != b; code=$?; sleep 3; exit $code',
        [("a",), ("b",), ("c",)],
        progress_seconds=1,
        workers=2,
    )
    process = start(job)

    def report() -> dict[str, Any] | None:
        for path in job.news.glob("b-1.progress-*"):
            with contextlib.suppress(FileNotFoundError):  # the next one has taken its place
                told: dict[str, Any] = json.loads(path.read_text())
                return told if told["step"] else None
        return None

    told = eventually(report, "a report", seconds=20)
    process.wait(30)

    assert (told["step"], told["steps"]) == (2, 3)
    assert told["metrics"] == {"tasks_succeeded": 1.0, "tasks_failed": 1.0}
    assert told["message"] == "failed of late: t1"


def test_elements_that_end_soon_report_for_all(job: Job) -> None:
    array(job, 'test "$1" != b', list("abcd"), pack=1, elements=4, progress_seconds=60)

    def reports() -> list[tuple[int, Any]]:
        told = [json.loads(path.read_text()) for path in job.news.glob("b-1.progress-*")]
        return [(each["step"], each.get("message")) for each in told]

    element(job, 0)
    assert reports() == [(1, None)]
    element(job, 1)
    assert reports() == [(1, None)]  # it is not due yet

    for number in (3, 2):
        os.utime(job.directory / in_job.REPORTER, (0, 0))
        element(job, number)
    assert reports() == [(4, "failed of late: t1")]


def test_templates_are_put_together_without_reading_the_values() -> None:
    assert render(["--x=", 1, "{y}", 0], ["{1}", "a b"]) == "--x=a b{y}{1}"


def test_another_image_runs_nothing(job: Job) -> None:
    array(job, "true", [("a",)], image_digest="sha256:" + "0" * 64)

    assert element(job) == in_job.NOT_STARTED

    assert results(job) == {}


def test_a_runtime_that_is_not_there_fails_the_tasks(job: Job) -> None:
    array(job, "true", [("a",)], launch=Launch(programs=["no-such"], command=["no-such"]))

    assert element(job) == 1

    assert "no-such" in results(job)["t0"]["message"]
