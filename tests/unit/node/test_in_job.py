"""The program of the job: runs once, tells how it ended, and writes the record last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.parsers.container import CompletionRecord
from aiida_byoc.runtimes import Container, Launch, bubblewrap, in_job
from aiida_byoc.runtimes.in_job.record import write_record
from tests.eventually import eventually
from tests.unit.node.inside import EMPTY, SLURM, Job

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap on PATH")


def contained(rootfs: Path) -> dict[str, Any]:
    """How to run a job's program in a container."""
    launch = bubblewrap.launch(Container(rootfs=str(rootfs), memory_mib=64))
    return {"launch": launch, "rootfs": rootfs, "env": {"PATH": "/bin"}}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_the_record_says_what_ran_and_how_it_ended(job: Job) -> None:
    before = time.time()

    status = job.sh("printf hello > a.txt", outputs=["a.txt"])

    assert status == 0
    record = CompletionRecord.model_validate(job.record)
    assert record.submission_id == "11111111-1111-4111-8111-111111111111"
    assert (record.attempt, record.image_digest) == (2, EMPTY)
    assert (record.scheduler_job_id, job.record["scheduler_job_name"]) == ("17", "b-1")
    assert job.record["node"] == "c1"
    assert (record.scheduler_cluster, record.scheduler_nodes) == (SLURM["SLURM_CLUSTER_NAME"], "c1")
    assert (record.container_started, record.exit_code, record.message) == (True, 0, None)
    assert before <= record.started_at <= record.ended_at <= time.time()
    assert record.usage.walltime_seconds == pytest.approx(
        record.ended_at - record.started_at, abs=0.01
    )
    (output,) = record.outputs
    assert (output.name, output.size) == ("a.txt", 5)
    assert output.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert record.missing == []
    assert (job.directory / "outputs" / "a.txt").read_text() == "hello"
    assert job.files() == {
        *("byoc_begun", "byoc_job.json", "byoc_record.json", "stdout", "stderr"),
        "byoc_fence/owner",
        "byoc_none_left/17",
        "outputs/a.txt",
        "work/.byoc/progress.jsonl",
    }
    assert (job.directory / "byoc_fence" / "owner").read_text() == "17\n"


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_the_programs_status_is_the_jobs(job: Job, script: str, code: int) -> None:
    assert job.sh(script) == code
    assert (job.record["container_started"], job.record["exit_code"]) == (True, code)


def test_a_runtime_that_is_not_there_is_named(job: Job) -> None:
    launch = Launch(programs=["no-such-runtime"], command=["no-such-runtime"])

    assert job.run("x", launch=launch) == in_job.UNUSABLE

    record = CompletionRecord.model_validate(job.record)
    assert (record.runtime_usable, record.container_started) == (False, False)
    assert record.exit_code is None
    assert record.message == "no-such-runtime is not on the compute node's PATH"


@pytest.mark.parametrize(
    ("place", "found", "words"),
    [
        ("another image", EMPTY, f"{EMPTY} is unpacked in the place of sha256:dddd"),
        ("no store", None, "the node's image store is not there, or lacks the image"),
        ("no root", None, "the node's image store is not there, or lacks the image"),
    ],
)
def test_another_image_than_was_sent_is_not_run(
    job: Job, tmp_path: Path, place: str, found: str | None, words: str
) -> None:
    """What is unpacked at the compute node says which it is, whatever its place is called."""
    rootfs = tmp_path / "store" / "rootfs"
    rootfs.mkdir(parents=True)
    (rootfs.parent / "manifest").write_text("{}")
    gone = {"no store": rootfs.parent, "no root": rootfs}.get(place)
    process = job.start(
        ["/bin/sh", "-c", "echo ran"],
        rootfs=rootfs,
        image_digest="sha256:" + "d" * 64,
        before=lambda: shutil.rmtree(gone) if gone else None,
    )

    assert process.wait(60) == in_job.NOT_STARTED

    record = CompletionRecord.model_validate(job.record)
    assert record.image_digest == found
    assert (record.container_started, record.runtime_usable) == (False, True)
    assert words in str(record.message)
    assert str(tmp_path) not in str(record.message)
    assert job.said() == ""


def test_output_streams_belong_to_the_program(job: Job) -> None:
    job.sh("printf out; printf err >&2")

    assert (job.said("stdout"), job.said("stderr")) == ("out", "err")


def test_the_environment_is_exactly_the_given_one(job: Job) -> None:
    """Nothing of Slurm's, of the machine's or of the batch script's reaches the program."""
    given = {"PATH": os.defpath, "QUOTED": "a 'b' \"c\" $(id)", "EMPTY": ""}

    job.run("/usr/bin/env", "-0", env=given)

    seen = dict(entry.split("=", 1) for entry in job.said().split("\0") if entry)
    assert seen == given


def test_the_programs_words_arrive_literally(job: Job) -> None:
    words = ["", "a b", "$(id)", "'", '"', "\\", "*", "{status_fd}", "-n", "ä", "\t"]
    script = 'for word do printf "%s\\0" "$word"; done'

    job.run("/bin/sh", "-c", f": $0; {script}", "x", *words)

    assert job.said().split("\0")[:-1] == words


def test_standard_input_is_empty(job: Job) -> None:
    assert job.sh("cat") == 0
    assert job.said() == ""


def test_i17_a_second_copy_leaves_without_a_trace(job: Job) -> None:
    job.sh("printf one > a", outputs=["a"])
    before = {name: (job.directory / name).read_bytes() for name in job.files() - {"stderr"}}

    status = job.sh("printf two > a", outputs=["a"])

    assert status == in_job.FENCED == 75
    assert "another copy of this job was here first" in job.said("stderr")
    after = {name: (job.directory / name).read_bytes() for name in job.files() - {"stderr"}}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {in_job.SPECIFICATION}  # by this test


def test_i17_of_copies_that_start_together_one_runs(job: Job) -> None:
    command = ["/bin/sh", "-c", "echo ran"]
    copies = [job.start(command) for _ in range(6)]

    assert sorted(copy.wait(60) for copy in copies) == [0] + [75] * 5
    assert job.said() == "ran\n"


@pytest.mark.parametrize("stopped", [True, False])
def test_the_record_says_whether_slurm_asked_it_to_end(job: Job, stopped: bool) -> None:
    """Else what Slurm says of the job afterwards could not be told from why the program ended."""
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"
    process = job.start(["/bin/sh", "-c", script if stopped else "exit 3"])
    if stopped:
        eventually(lambda: job.said() == "up\n", "the program to run")
        process.terminate()

    assert process.wait(60) == 3
    record = CompletionRecord.model_validate(job.record)
    assert (record.exit_code, record.stopped) == (3, stopped)


def test_i19_a_job_that_is_killed_leaves_no_record(job: Job) -> None:
    process = job.start(["/bin/sh", "-c", "echo up; exec sleep 60"])
    eventually(lambda: job.said() == "up\n", "the program to run", logs=[job.directory / "stderr"])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    process.kill()
    process.wait(60)
    for child in children:
        os.kill(int(child), signal.SIGKILL)

    assert not {name for name in job.files() if in_job.RECORD in name}


def test_i19_the_record_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is seen under its name until all of it is on the disk."""
    monkeypatch.chdir(tmp_path)
    steps: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        assert not Path(in_job.RECORD).exists()
        real_sync(descriptor)

    def rename(source: str, target: str) -> None:
        steps.append(f"rename {source} {target}")
        json.loads(Path(source).read_text())
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    write_record({"exit_code": 0})

    temporary = f"{in_job.RECORD}.tmp"
    assert steps == [f"sync {temporary}", f"rename {temporary} {in_job.RECORD}"]
    assert [path.name for path in tmp_path.iterdir()] == [in_job.RECORD]


def test_what_the_program_left_running_is_waited_for(job: Job) -> None:
    """Outputs are measured when nobody can change them any more."""
    late = "(while [ ! -e go ]; do :; done; printf late > a) </dev/null >/dev/null 2>&1 &"
    process = job.start(["/bin/sh", "-c", f"cd work; {late} echo up"], outputs=["a"])
    eventually(lambda: job.said() == "up\n", "the program to end", logs=[job.directory / "stderr"])
    assert not (job.directory / in_job.RECORD).exists()

    (job.directory / "work" / "go").touch()

    assert process.wait(60) == 0
    assert job.record["outputs"][0]["sha256"] == hashlib.sha256(b"late").hexdigest()


def test_usage_counts_grandchildren(job: Job) -> None:
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"

    job.sh(f"(sh -c '{burn}' &) ; true")

    usage = job.record["usage"]
    assert usage["cpu_seconds"] > 0.1
    assert usage["peak_rss_mib"] > 0.5
    assert usage["walltime_seconds"] >= usage["cpu_seconds"] / 4


@needs_bubblewrap
def test_a_container_that_succeeds(job: Job, rootfs: Path) -> None:
    script = "echo $A; mkdir d; echo x > d/o; exit 0"
    options = {**contained(rootfs), "env": {"A": "1", "PATH": "/bin"}}

    assert job.run("sh", "-c", script, outputs=["d/o"], **options) == 0
    assert (job.record["container_started"], job.record["exit_code"]) == (True, 0)
    assert job.said() == "1\n"
    assert [output["name"] for output in job.record["outputs"]] == ["d/o"]


@needs_bubblewrap
@pytest.mark.parametrize(
    ("script", "code"), [("exit 1", 1), ("exit 125", 125), ("kill -9 $$", 137)]
)
def test_a_container_that_fails(job: Job, rootfs: Path, script: str, code: int) -> None:
    """Also with a status that the runtime itself uses."""
    assert job.run("sh", "-c", script, **contained(rootfs)) == code
    assert (job.record["container_started"], job.record["exit_code"]) == (True, code)


@needs_bubblewrap
def test_a_program_that_is_not_there_is_named(job: Job, rootfs: Path) -> None:
    """Another compute node does not have it either."""
    assert job.run("no-such-program", **contained(rootfs)) == in_job.NOT_STARTED

    assert (job.record["container_started"], job.record["exit_code"]) == (False, None)
    assert job.record["runtime_usable"]
    assert "no-such-program" in job.record["message"]


@needs_bubblewrap
def test_a_runtime_that_cannot_be_used_says_why(job: Job, tmp_path: Path) -> None:
    """Here because the root has no place for `/proc`; another compute node may do."""
    (tmp_path / "image" / "rootfs").mkdir(parents=True)

    assert job.run("sh", **contained(tmp_path / "image" / "rootfs")) == in_job.UNUSABLE

    assert (job.record["container_started"], job.record["exit_code"]) == (False, None)
    assert not job.record["runtime_usable"]
    assert "bwrap: " in job.record["message"]


@needs_bubblewrap
def test_the_program_gets_the_signals_of_the_job(job: Job, rootfs: Path) -> None:
    """It ends as it wants to; the job's program waits for it."""
    script = 'trap "echo ended in order; exit 7" TERM; echo up; while :; do sleep 1; done'
    process = job.start(["sh", "-c", script], **contained(rootfs))
    eventually(lambda: job.said() == "up\n", "the program to run", logs=[job.directory / "stderr"])

    process.terminate()

    assert process.wait(60) == 7
    assert job.said() == "up\nended in order\n"
    assert job.record["exit_code"] == 7


@needs_bubblewrap
def test_i26_a_killed_job_takes_its_container_along(job: Job, rootfs: Path) -> None:
    duration = f"62.{os.getpid()}"
    script = f"echo up; sleep {duration}"
    process = job.start(["sh", "-c", script], **contained(rootfs))
    eventually(lambda: job.said() == "up\n", "the program to run", logs=[job.directory / "stderr"])

    process.kill()

    eventually(lambda: not running(duration), "the container to be gone")


@needs_bubblewrap
def test_a_container_leaves_nothing_running(job: Job, rootfs: Path) -> None:
    """What it started in the background dies with it, before the outputs are measured."""
    duration = f"61.{os.getpid()}"
    script = f"sleep {duration} & echo x > o"

    assert job.run("sh", "-c", script, **contained(rootfs)) == 0

    assert not running(duration)
    assert job.record["usage"]["walltime_seconds"] < 30


@needs_bubblewrap
def test_usage_counts_the_containers_processes(job: Job, rootfs: Path) -> None:
    """bubblewrap does not wait for them; the program of the job does."""
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"

    job.run("sh", "-c", burn, **contained(rootfs))

    assert job.record["usage"]["cpu_seconds"] > 0.1


def running(word: str) -> list[Path]:
    """The processes with that word on their command line."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if word.encode() in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
