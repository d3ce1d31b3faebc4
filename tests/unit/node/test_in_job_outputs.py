"""Only regular files below `work` are outputs; nothing else of the machine can be had by that name."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.paths import SERVICE_USER, as_user
from tests.unit.node.inside import Job

SECRET = "the machine's own"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    (tmp_path / "secret").write_text(SECRET)
    return Job(tmp_path / "job")


@pytest.fixture
def unprivileged(job: Job) -> Iterator[Job]:
    """A job of an ordinary user, whom closed directories stop; as root, of the service user."""
    if os.geteuid() != 0:
        yield job
        return
    place = Path(tempfile.mkdtemp(prefix="byoc-test-"))
    shutil.chown(place, SERVICE_USER)
    # The interpreter of this test may lie where the service user cannot go.
    yield Job(place, python="/usr/bin/python3", as_user=["setpriv", *as_user(SERVICE_USER)])
    shutil.rmtree(place)


def kept(job: Job) -> dict[str, str]:
    return {each["name"]: each["sha256"] for each in job.record["outputs"]}


def test_outputs_are_moved_and_measured(job: Job) -> None:
    names = ["a", "d/b", "d/e/c", "ümlaut ß", "x y"]
    script = "mkdir -p d/e; for n in a d/b d/e/c 'ümlaut ß' 'x y'; do printf \"$n\" > \"$n\"; done"

    assert job.sh(script, outputs=names) == 0

    assert kept(job) == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert job.record["missing"] == []
    for name in names:
        assert not (job.directory / "work" / name).exists()
        assert (job.directory / "outputs" / name).read_text() == name


def test_an_output_that_was_not_promised_stays(job: Job) -> None:
    job.sh("echo x > promised; echo x > other", outputs=["promised"])

    assert (job.directory / "work" / "other").exists()
    assert [path.name for path in (job.directory / "outputs").iterdir()] == ["promised"]


def test_large_and_empty_outputs(job: Job) -> None:
    job.sh("printf '' > empty; head -c 3000001 /dev/zero > large", outputs=["empty", "large"])

    sizes = {each["name"]: each["size"] for each in job.record["outputs"]}
    assert sizes == {"empty": 0, "large": 3000001}
    assert kept(job)["large"] == hashlib.sha256(bytes(3000001)).hexdigest()


@pytest.mark.parametrize(
    "script",
    [
        ":",
        "ln -s ../../secret o",
        "ln -s $SECRET o",
        "echo x > real; ln -s real o",
        "ln -s nowhere o",
        "ln -s o o",
        "mkdir o",
        "mkfifo o",
    ],
    ids=["nothing", "link out", "absolute", "link within", "dangling", "loop", "directory", "fifo"],
)
def test_i25_what_is_no_regular_file_is_missing(job: Job, script: str) -> None:
    secret = str(job.directory.parent / "secret")

    status = job.sh(script, outputs=["o"], env={"PATH": os.defpath, "SECRET": secret})

    assert status == 0
    assert (job.record["outputs"], job.record["missing"]) == ([], ["o"])
    assert not (job.directory / "outputs" / "o").exists()
    assert Path(secret).read_text() == SECRET


@pytest.mark.parametrize("target", ["../..", "$UP", "real"])
def test_i25_an_output_below_a_link_is_missing(job: Job, target: str) -> None:
    """`d/secret` with `d` leading out of `work` would move the machine's own file."""
    up = str(job.directory.parent)
    script = f'mkdir real; echo x > real/secret; ln -s "{target}" d'

    job.sh(script, outputs=["d/secret"], env={"PATH": os.defpath, "UP": up})

    assert (job.record["outputs"], job.record["missing"]) == ([], ["d/secret"])
    assert (job.directory.parent / "secret").read_text() == SECRET
    assert not (job.directory / "outputs").exists()


def test_one_missing_output_does_not_hide_the_others(job: Job) -> None:
    job.sh("echo x > b; mkdir c", outputs=["a", "b", "c", "d/e"])

    assert list(kept(job)) == ["b"]
    assert job.record["missing"] == ["a", "c", "d/e"]


def test_outputs_of_a_job_that_failed_are_kept(job: Job) -> None:
    assert job.sh("echo x > partial; exit 9", outputs=["partial"]) == 9
    assert list(kept(job)) == ["partial"]


def test_files_and_directories_that_the_job_closed_are_kept(unprivileged: Job) -> None:
    script = "mkdir d; echo x > d/o; chmod 000 d/o; chmod 555 d"

    assert unprivileged.sh(script, outputs=["d/o"]) == 0

    assert list(kept(unprivileged)) == ["d/o"]
    assert (unprivileged.directory / "outputs" / "d" / "o").read_text() == "x\n"
