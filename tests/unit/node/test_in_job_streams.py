"""What a container says arrives as it is and at once, and never fills a disk or keeps a job from ending."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from aiida_byoc.runtimes.in_job.streams import LAST_BYTES
from tests.eventually import eventually
from tests.unit.node.inside import Job

SHELL = {"PATH": os.defpath}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job")


def test_bytes_pass_as_they_are(job: Job, tmp_path: Path) -> None:
    said = os.urandom(300_000) + b"\xff\xfe\x00no line end"
    (tmp_path / "said").write_bytes(said)

    job.sh("cat $SAID; cat $SAID >&2", env={**SHELL, "SAID": str(tmp_path / "said")})

    assert (job.directory / "stdout").read_bytes() == said
    assert (job.directory / "stderr").read_bytes() == said


def test_a_line_is_there_as_soon_as_it_is_said(job: Job) -> None:
    script = "printf 'half a '; printf line; while [ ! -e go ]; do :; done"
    process = job.start(["/bin/sh", "-c", script])
    log = job.directory / "stdout"

    eventually(lambda: log.read_text() == "half a line", "the words", logs=[log])

    assert process.poll() is None
    (job.directory / "go").touch()
    assert process.wait(60) == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_of_a_log_beyond_its_limit_the_beginning_and_the_end_are_kept(
    job: Job, stream: str
) -> None:
    said = "".join(f"{number}\n" for number in range(1, 300_001)).encode()

    job.sh(f"seq 300000 >&{1 if stream == 'stdout' else 2}", max_log_bytes=5000)

    kept = (job.directory / stream).read_bytes()
    beginning, full, left_out, end = re.fullmatch(
        rb"(.{5000})\n\[byoc: these were (\d+) bytes[^\n]+\]\n\[byoc: (\d+) bytes are left out here\]\n(.*)",
        kept,
        re.DOTALL,
    ).groups()  # type: ignore[union-attr]
    assert beginning == said[:5000]
    assert int(full) == 5000
    assert end == said[-LAST_BYTES:]
    assert 5000 + int(left_out) + LAST_BYTES == len(said)


def test_a_log_of_exactly_its_limit_is_whole(job: Job) -> None:
    job.sh("head -c 5000 /dev/zero", max_log_bytes=5000)

    assert (job.directory / "stdout").read_bytes() == bytes(5000)


def test_little_beyond_the_limit_is_all_there(job: Job) -> None:
    job.sh("printf 123456789", max_log_bytes=5)

    said = job.said()
    assert said.startswith("12345\n[byoc: these were 5 bytes")
    assert said.endswith("\n[byoc: 0 bytes are left out here]\n6789")


def test_ten_gigabytes_cost_neither_disk_nor_long(job: Job) -> None:
    began = time.monotonic()

    assert job.sh("head -c 10G /dev/zero; echo done", max_log_bytes=1 << 20) == 0

    assert time.monotonic() - began < 60
    log = job.directory / "stdout"
    assert log.stat().st_size < (1 << 20) + LAST_BYTES + 300
    assert log.read_bytes().endswith(b"\0done\n")


def test_who_holds_the_stream_open_does_not_keep_the_job(job: Job) -> None:
    process = job.start(["/bin/sh", "-c", "echo $$; while [ ! -e go ]; do :; done"])
    program = eventually(job.said, "the program to run").strip()

    with Path(f"/proc/{program}/fd/1").open("wb", buffering=0) as held:
        held.write(b"from outside\n")
        (job.directory / "go").touch()
        assert process.wait(60) == 0
    assert job.said() == f"{program}\nfrom outside\n"


def test_a_full_disk_does_not_stop_the_program(job: Job) -> None:
    (job.directory / "stdout").symlink_to("/dev/full")

    assert job.sh("head -c 3000000 /dev/zero; echo x > o", outputs=["o"]) == 0
    assert [output["name"] for output in job.record["outputs"]] == ["o"]
