"""What a container reports of its progress, whatever it makes of the file; and the hints for the node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_byoc.contracts.progress import Progress
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job.news import News
from aiida_byoc.runtimes.in_job.progress import TAIL, Follower, report
from tests.eventually import eventually
from tests.unit.node.inside import Job

NOW = "2026-02-15T10:00:00.000Z"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job")


def entries(job: Job) -> set[str]:
    return {path.name for path in job.news.iterdir()} if job.news.exists() else set()


def lines(*reports: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in reports)


def test_the_newest_report_is_told_and_recorded(job: Job) -> None:
    told = lines({"step": 1}, {"step": 2, "steps": 9, "message": "two", "unknown": {}})
    script = (
        f"cat >> .byoc/progress.jsonl <<'END'\n{told}END\n"
        "while [ ! -e go ]; do :; done; echo '{\"step\": 9}' >> .byoc/progress.jsonl"
    )
    process = job.start(["/bin/sh", "-c", f"cd work; {script}"], progress_seconds=1)
    place = job.news / "b-1.progress-1"
    eventually(place.exists, "the first report", logs=[job.directory / "stderr"])

    first = json.loads(place.read_text())
    (job.directory / "work" / "go").touch()

    assert process.wait(60) == 0
    assert first.pop("reported_at") <= job.record["progress"]["reported_at"]
    assert first == {"job_name": "b-1", "step": 2, "steps": 9, "message": "two"}
    assert job.record["progress"]["step"] == 9
    assert job.record["progress_skipped"] == 0
    assert Progress.read(job.record["progress"]) is not None


def test_what_happens_to_the_job_is_told_as_it_happens(job: Job) -> None:
    process = job.start(["/bin/sh", "-c", "while [ ! -e go ]; do :; done"])
    eventually(lambda: entries(job) == {"b-1.started"}, "the start to be told")
    assert (job.directory / in_job.FENCE).exists()

    (job.directory / "go").touch()

    assert process.wait(60) == 0
    assert entries(job) == {"b-1.ended"}
    assert (job.directory / in_job.RECORD).exists()


def test_a_second_copy_tells_nothing(job: Job) -> None:
    (job.directory / in_job.FENCE).mkdir()

    assert job.sh("true") == in_job.FENCED
    assert entries(job) == set()


def test_slurms_sigterm_is_told_before_the_container_has_ended(job: Job) -> None:
    script = "trap 'until [ -e go ]; do :; done; exit 0' TERM; echo up; while :; do :; done"
    process = job.start(["/bin/sh", "-c", script])
    eventually(lambda: job.said() == "up\n", "the program to run", logs=[job.directory / "stderr"])

    process.terminate()
    eventually(lambda: entries(job) == {"b-1.stopping"}, "the stop to be told")
    (job.directory / "go").touch()

    assert process.wait(60) == 0
    assert entries(job) == {"b-1.ended"}


def test_a_job_that_cannot_tell_runs_all_the_same(job: Job) -> None:
    job.news.write_text("a file where the directory should be")

    assert job.sh("echo '{\"step\": 1}' >> .byoc/progress.jsonl", progress_seconds=1) == 0
    assert job.record["progress"]["step"] == 1


HOSTILE = {
    "pipe": "rm .byoc/progress.jsonl; mkfifo .byoc/progress.jsonl",
    "link to a file": "ln -sf ../../../secret .byoc/progress.jsonl",
    "link to a device": "ln -sf /dev/zero .byoc/progress.jsonl",
    "link to itself": "ln -sf progress.jsonl .byoc/progress.jsonl",
    "directory": "rm .byoc/progress.jsonl; mkdir .byoc/progress.jsonl",
    "linked directory": "mv .byoc elsewhere; ln -s ../../linked .byoc",
    "nothing": "rm -r .byoc",
    "a file for a directory": "rm -r .byoc; echo > .byoc",
    "no rights": "chmod 0 .byoc/progress.jsonl; chmod 0 .byoc",
    "empty": ": > .byoc/progress.jsonl",
    "binary": "head -c 100000 /dev/urandom > .byoc/progress.jsonl",
    "one endless line": "head -c 100000 /dev/zero | tr '\\0' x > .byoc/progress.jsonl",
    "brackets": "head -c 4000 /dev/zero | tr '\\0' '[' > .byoc/progress.jsonl; echo >> .byoc/progress.jsonl",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_whatever_lies_there_does_no_harm(job: Job, tmp_path: Path, script: str) -> None:
    """It is looked at while the job runs, and once more at its end."""
    (tmp_path / "secret").write_text(lines({"message": "the machine's own"}))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "progress.jsonl").write_text(lines({"message": "the machine's own"}))
    began = time.monotonic()

    assert job.sh(f"{script}; sleep 0.5", progress_seconds=1) == 0

    assert job.record["progress"] is None
    assert entries(job) == {"b-1.ended"}
    assert time.monotonic() - began < 20


def test_of_ten_gigabytes_the_end_is_read(job: Job) -> None:
    place = ".byoc/progress.jsonl"
    script = f"truncate -s 10G {place}; echo >> {place}; echo '{{\"step\": 3}}' >> {place}"

    assert job.sh(script, progress_seconds=1) == 0
    assert job.record["progress"]["step"] == 3


def test_lines_that_are_no_reports_are_skipped_and_counted(job: Job) -> None:
    bad = ["", "no JSON", "[1]", "7", "null", "{}", '{"unknown": 1}', '{"step": "3"}', '{"step": 3']
    told = "\n".join(['{"step": 1}', *bad]) + "\n"

    job.sh(f"cat > .byoc/progress.jsonl <<'END'\n{told}END")

    assert job.record["progress"]["step"] == 1
    assert job.record["progress_skipped"] == len([line for line in bad if line])


def test_reports_are_rate_limited_and_the_newest_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    follower = Follower(News("news", "b-1"), 1.0)
    file = tmp_path / in_job.WORK / in_job.PROGRESS
    began = time.monotonic()
    follower.start()
    step, told = 0, list[Path]()

    def five() -> bool:
        nonlocal step, told
        step += 1
        with file.open("a") as writing:
            writing.write(lines({"step": step}))
        told = list((tmp_path / "news").glob("b-1.progress-*"))
        return any(path.name.endswith("-4") for path in told)

    eventually(five, "four reports")
    took = time.monotonic() - began
    follower.finish()

    assert took >= 3.0
    assert follower.newest["step"] == step > 4
    assert follower.skipped == 0


@pytest.mark.parametrize("size", [10, 1000, TAIL - 12, TAIL, 3 * TAIL])
def test_a_line_is_read_once_whatever_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Also one that is written in pieces while it is looked at; one that is longer than what is read is none."""
    monkeypatch.chdir(tmp_path)
    follower = Follower(News("news", "b-1"), 10)
    file = tmp_path / in_job.WORK / in_job.PROGRESS
    file.parent.mkdir(parents=True)
    text = json.dumps({"step": 1, "padding": "x" * size}) + "\n"

    for end in range(0, len(text), 100):
        file.write_text(text[:end])
        assert not follower._look(complete=False)
    file.write_text(text)
    seen = follower._look(complete=False)
    again = follower._look(complete=False)
    with file.open("a") as writing:
        writing.write(lines({"step": 2}))
    later = follower._look(complete=False)

    assert (seen, again, later) == (len(text) <= TAIL, False, True)
    assert (follower.newest["step"], follower.skipped) == (2, 0)


FIELDS = {
    "fraction": ([0, 1, 0.5, 1e-300], [-0.1, 1.1, True, "0.5", [], float("nan"), 10**400]),
    "step": ([0, 7, 7.0, 2**53 - 1], [-1, 0.5, 2**53, True, "1", 1e300, float("inf")]),
    "steps": ([1, 2**53 - 1], [0, -1, False]),
    "message": (["", "x" * 500], [1, ["x"], {}]),
    "metrics": (
        [{}, {"a/b-c.d_e": 1, "F": -1.5e300}, {f"m{index}": index for index in range(16)}],
        [
            *([], [1], "x", {"": 1}, {"$a": 1}, {"_a": 1}, {"ä": 1}, {"a b": 1}, {"a\n": 1}),
            *({"a": "1"}, {"a": True}, {"a": None}, {"a": float("-inf")}, {"x" * 65: 1}),
            {f"m{index}": index for index in range(17)},
        ],
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_taken_or_the_line_is_no_report(name: str) -> None:
    good, bad = FIELDS[name]
    for value in good:
        assert report(json.dumps({name: value, "more": 1}).encode()) == {name: value}
    for value in bad:
        assert report(json.dumps({"fraction": 1, "step": 1, name: value}).encode()) is None, value


def test_a_message_is_one_printable_line() -> None:
    said = report(json.dumps({"message": "a\nb\x1b[2J\u2028ä\ud800" + "x" * 600}).encode())

    assert said is not None
    assert said["message"] == "a b [2J ä " + "x" * 490


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
METRICS = st.dictionaries(st.text(alphabet="aZ0_./-$ ", max_size=66), JSON, max_size=18)


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "x"]), JSON | METRICS | st.integers(0, 5))
    | st.dictionaries(st.just("message"), st.text())
)
def test_what_is_passed_on_keeps_the_contract(told: dict[str, Any]) -> None:
    found = report(json.dumps(told).encode())

    assert found is None or Progress.read({**found, "reported_at": NOW}) is not None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_none(line: bytes) -> None:
    found = report(line)

    assert found is None or Progress.read({**found, "reported_at": NOW}) is not None
