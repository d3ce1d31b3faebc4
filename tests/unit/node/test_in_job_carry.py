"""An attempt that goes on with an earlier one's files: copies of all that is harmless, of nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import pytest

from aiida_byoc.parsers.container import CompletionRecord
from aiida_byoc.runtimes import in_job
from tests.eventually import eventually
from tests.unit.node.inside import Job

LIST = "find . -mindepth 1 -name .byoc -prune -o -mindepth 1 -print | sort"


@pytest.fixture
def earlier(tmp_path: Path) -> Job:
    """An attempt that ran before."""
    (tmp_path / "earlier").mkdir()
    return Job(tmp_path / "earlier")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "later").mkdir()
    return Job(tmp_path / "later")


def goes_on(job: Job, script: str, *earlier: Job) -> str:
    """Run the script in an attempt that goes on; return what it says."""
    assert job.sh(script, earlier=[each.directory for each in earlier]) == 0
    return job.said()


def test_an_attempt_goes_on_with_files_directories_and_links(earlier: Job, job: Job) -> None:
    earlier.sh(
        "mkdir -p state/deep; echo 7 > state/deep/step; chmod 750 state; printf x > run; chmod 755 run;"
        " ln -s state/deep/step latest; ln -s /nowhere dangling; mkdir empty"
    )

    said = goes_on(job, f"cat latest; {LIST}; stat -c '%a' run state; readlink dangling", earlier)

    assert said.split() == [
        *("7", "./dangling", "./empty", "./latest", "./run", "./state", "./state/deep"),
        *("./state/deep/step", "755", "750", "/nowhere"),
    ]
    assert job.record["carried"] == {"files": 2, "bytes": 3, "left_out": 0}
    CompletionRecord.model_validate(job.record)


def test_the_earlier_directory_stays_as_it_was_left(earlier: Job, job: Job) -> None:
    """Copies, not links: a program that writes into its files changes none of the earlier ones."""
    earlier.sh("echo 1 > step; echo done > log", outputs=["log"])
    before = {name: (earlier.directory / name).read_bytes() for name in earlier.files()}

    goes_on(job, "echo 2 > step; echo more >> log; rm -f gone", earlier)

    assert {name: (earlier.directory / name).read_bytes() for name in earlier.files()} == before


def test_an_output_of_the_earlier_attempt_is_among_its_files(earlier: Job, job: Job) -> None:
    """It was moved out of the working directory when that attempt ended by itself."""
    earlier.sh("mkdir out; echo half > out/result", outputs=["out/result"])

    assert goes_on(job, "cat out/result", earlier) == "half\n"


def test_what_the_earlier_attempt_left_stands_above_what_was_staged(earlier: Job, job: Job) -> None:
    """A program may change its inputs, and may put anything in their place."""
    earlier.sh("echo changed > in; ln -s /etc/hostname conf; mkdir file; echo x > file/a")
    staged = job.directory / in_job.WORK
    (staged / "conf" / "deep").mkdir(parents=True)
    (staged / "conf" / "deep" / "a").write_text("staged")
    (staged / "in").write_text("staged")
    (staged / "file").write_text("staged")
    (staged / "only").write_text("staged")

    said = goes_on(job, "cat in; readlink conf; cat file/a only", earlier)

    assert said == "changed\n/etc/hostname\nx\nstaged"


def test_links_are_not_followed_out_of_the_directory(
    earlier: Job, job: Job, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("a secret")
    earlier.sh(f"ln -s {secret} directory; ln -s {secret}/key file")

    assert goes_on(job, "test -L directory && test -L file && echo links", earlier) == "links\n"
    assert job.record["carried"]["files"] == 0


def test_pipes_sockets_and_devices_are_left(earlier: Job, job: Job) -> None:
    earlier.sh("mkfifo pipe; echo x > kept")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(earlier.directory / in_job.WORK / "socket"))
    if os.geteuid() == 0:
        os.mknod(earlier.directory / in_job.WORK / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))

    assert goes_on(job, LIST, earlier) == "./kept\n"
    assert job.record["carried"]["left_out"] == (3 if os.geteuid() == 0 else 2)


def test_holes_stay_holes(earlier: Job, job: Job) -> None:
    earlier.sh("truncate -s 3G sparse; printf end >> sparse; truncate -s 1M hollow")

    said = goes_on(job, "tail -c 3 sparse; stat -c ' %s' sparse hollow", earlier)

    assert said.split() == ["end", str(3 * 2**30 + 3), str(2**20)]
    blocks = (job.directory / in_job.WORK / "sparse").stat().st_blocks
    assert blocks * 512 < 2**20


def test_a_tree_of_any_depth_can_be_taken_up(earlier: Job, job: Job) -> None:
    """What is deeper than anybody means it is left."""
    earlier.sh("for n in $(seq 500); do mkdir d; cd d; done; echo x > bottom")

    assert int(goes_on(job, "find d -type d | wc -l", earlier)) == 64
    assert job.record["carried"] == {"files": 0, "bytes": 0, "left_out": 1}
    shutil.rmtree(earlier.directory / in_job.WORK / "d")  # too deep for pytest


def test_an_attempt_that_never_began_is_passed_over(earlier: Job, job: Job, tmp_path: Path) -> None:
    """Its node failed while it was taking up the files of the one before: it has a part of them."""
    (tmp_path / "between").mkdir()
    between = Job(tmp_path / "between")
    earlier.sh("echo 7 > step")
    between.sh("echo part > step")
    (between.directory / in_job.BEGUN).unlink()

    assert goes_on(job, "cat step", between, earlier) == "7\n"


def test_the_program_knows_that_it_goes_on(earlier: Job, job: Job, tmp_path: Path) -> None:
    earlier.sh("true")
    (tmp_path / "fresh").mkdir()

    assert goes_on(job, 'echo "$BYOC_RESTART"', earlier) == "1\n"
    assert goes_on(Job(tmp_path / "fresh"), 'echo "[$BYOC_RESTART]"') == "[]\n"


def test_without_anything_to_go_on_with_the_program_starts_anew(job: Job, tmp_path: Path) -> None:
    """The earlier directory was cleaned away, or its attempt never came to it."""
    said = job.sh('echo "[$BYOC_RESTART]"', earlier=[tmp_path / "nowhere"])

    assert (said, job.said(), job.record["carried"]) == (0, "[]\n", None)


def test_files_that_cannot_be_taken_up_are_named(earlier: Job, job: Job) -> None:
    """As on a full disk: the program is not started on a part of its files."""
    earlier.sh("echo x > file")
    (job.directory / in_job.WORK).symlink_to(earlier.directory)

    assert job.sh("true", earlier=[earlier.directory]) == in_job.NOT_STARTED

    assert "files of the earlier attempt cannot be taken up" in job.record["message"]
    assert not (job.directory / in_job.BEGUN).exists()


@pytest.mark.parametrize("name", ["USR1", "USR2", "TERM", "INT"])
def test_the_program_hears_its_checkpoint_signal(job: Job, name: str) -> None:
    """And the record says so: it tells an end by itself from one that was asked for."""
    script = f"cd work; trap 'echo saved; exit 3' {name}; echo ready; while :; do sleep 0.05; done"
    running = job.start(["/bin/sh", "-c", script], signal=name)
    eventually(lambda: "ready" in job.said(), "the program to be ready")

    running.send_signal(getattr(signal, f"SIG{name}"))

    assert running.wait(30) == 3
    assert job.said() == "ready\nsaved\n"
    assert (job.record["exit_code"], job.record["signals"]) == (3, [name])
