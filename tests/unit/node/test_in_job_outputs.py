"""Only regular files below `work` are outputs; nothing else of the machine can be had by that name."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.paths import SERVICE_USER, as_user
from tests.eventually import eventually
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_i19_nobody_else_can_forge_a_record() -> None:
    """Whatever the site's umask is: neither while the job runs nor after it."""
    with tempfile.TemporaryDirectory(prefix="byoc-test-") as place:
        job = Job(Path(place) / "job")
        job.directory.mkdir()
        for each in (job.directory.parent, job.directory):
            each.chmod(0o777)
        assert somebody_writes(job.directory / "before")
        process = job.start(["/bin/sh", "-c", "echo up; while [ ! -e go ]; do :; done; exit 3"])
        eventually(job.said, "the program to run")

        assert not somebody_writes(job.directory / "byoc_record.json")
        (job.directory / "go").touch()
        assert process.wait(60) == 3
        assert not somebody_writes(job.directory / "byoc_record.json")
        assert job.record["exit_code"] == 3


def somebody_writes(path: Path) -> bool:
    """Whether another user can."""
    shell = ["sh", "-c", 'echo "{}" > "$0"', str(path)]
    command = ["setpriv", *as_user(SERVICE_USER), *shell]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


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
    ("script", "reason"),
    [
        (":", "is not there"),
        ("ln -s ../../secret o", "is a symbolic link"),
        ("ln -s $SECRET o", "is a symbolic link"),
        ("echo x > real; ln -s real o", "is a symbolic link"),
        ("ln -s nowhere o", "is a symbolic link"),
        ("ln -s o o", "is a symbolic link"),
        ("mkdir o", "is a directory"),
        ("mkfifo o", "is a FIFO"),
        ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"o\")'", "is a socket"),
        ("ln ../../secret o", "is a hard link to a file outside of the job's directory"),
    ],
    ids=[
        "nothing",
        "link out",
        "absolute",
        "link within",
        "dangling",
        "loop",
        "directory",
        "fifo",
        "socket",
        "hard",
    ],
)
def test_i25_what_is_no_regular_file_of_the_job_is_missing(
    job: Job, script: str, reason: str
) -> None:
    secret = job.directory.parent / "secret"
    before = secret.stat().st_mode

    status = job.sh(script, outputs=["o"], env={"PATH": os.defpath, "SECRET": str(secret)})

    assert status == 0
    assert (job.record["outputs"], job.record["missing"]) == ([], ["o"])
    assert job.record["reasons"] == {"o": reason}
    assert not (job.directory / "outputs" / "o").exists()
    assert (secret.read_text(), secret.stat().st_mode) == (SECRET, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="devices are made by root alone")
def test_i25_a_device_is_missing(job: Job) -> None:
    job.sh("mknod o c 1 5 && mknod p b 7 0", outputs=["o", "p"])

    assert job.record["reasons"] == {"o": "is a device", "p": "is a device"}
    assert job.record["outputs"] == []


def test_two_names_of_one_file_are_two_outputs(job: Job) -> None:
    job.sh("echo x > step-9; ln step-9 last", outputs=["step-9", "last"])

    assert list(kept(job)) == ["step-9", "last"]
    assert (job.directory / "outputs" / "last").read_text() == "x\n"


@pytest.mark.parametrize("target", ["../..", "$UP", "real"])
def test_i25_an_output_below_a_link_is_missing(job: Job, target: str) -> None:
    """`d/secret` with `d` leading out of `work` would move the machine's own file."""
    up = str(job.directory.parent)
    script = f'mkdir real; echo x > real/secret; ln -s "{target}" d'

    job.sh(script, outputs=["d/secret"], env={"PATH": os.defpath, "UP": up})

    assert (job.record["outputs"], job.record["missing"]) == ([], ["d/secret"])
    assert job.record["reasons"]["d/secret"] == "lies below a symbolic link"
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


def test_an_output_that_need_not_be_there(job: Job) -> None:
    promised = [{"name": "a", "required": False}, {"glob": "*.x", "required": False}]

    job.sh("mkdir a", outputs=promised)

    assert (job.record["missing"], job.record["outputs"]) == ([], [])


def test_all_that_a_pattern_means_is_kept_once(job: Job) -> None:
    script = (
        "mkdir -p m/n .h; for f in m/1.json m/n/2.json m/n/3.txt .h/4.json; do echo $f > $f; done"
    )

    job.sh(script, outputs=["m/1.json", {"glob": "m/*.json"}, {"glob": "**/*.json"}])

    assert list(kept(job)) == ["m/1.json", "m/n/2.json"]
    assert (job.directory / "outputs" / "m" / "n" / "2.json").read_text() == "m/n/2.json\n"
    assert (job.directory / "work" / ".h" / "4.json").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (":", "matches no file"),
        ("mkdir a.x", "matches no file"),
        ("ln -s ../../secret a.x", "matches nothing but links and special files"),
        ("mkfifo a.x", "matches nothing but links and special files"),
        ("ln -s .. d; ln -s ../secret c", "matches no file"),
    ],
    ids=["nothing", "directory", "link", "fifo", "below a link"],
)
def test_i25_a_pattern_that_means_no_file_is_missing(job: Job, script: str, reason: str) -> None:
    job.sh(script, outputs=[{"glob": "**/*.x"}, {"glob": "d/sec*"}])

    assert job.record["outputs"] == []
    assert job.record["missing"] == ["**/*.x", "d/sec*"]
    assert job.record["reasons"]["**/*.x"] == reason


def test_i25_a_pattern_takes_no_hard_link_out_of_the_directory(job: Job) -> None:
    job.sh("ln ../../secret b; echo x > a", outputs=[{"glob": "*"}])

    assert list(kept(job)) == ["a"]
    assert list(job.record["reasons"]) == job.record["missing"] == ["b"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("$(printf '\\377').x", "\\udcff.x"),
        ("$(printf 'a\\033b').x", "a\x1bb.x"),
        ("$(printf 'd%.0s' $(seq 250))/" * 3 + "o.x", "d" * 250 + "/" + "d" * 250 + "/" + "d" * 10),
    ],
    ids=["not UTF-8", "control", "long"],
)
def test_a_name_that_cannot_be_told_fails_the_promise(job: Job, name: str, told: str) -> None:
    script = f'f="{name}"; mkdir -p "$(dirname "$f")"; echo x > "$f"; echo x > good.x'

    job.sh(script, outputs=[{"glob": "**/*.x"}])

    assert list(kept(job)) == ["good.x"]
    assert job.record["missing"] == [told]


def test_a_file_beyond_its_limit_stays_and_is_told(job: Job) -> None:
    job.sh("printf 12345 > a; printf 1234 > b", outputs=["a", "b"], max_output_bytes=4)

    assert list(kept(job)) == ["b"]
    assert job.record["too_large"] == ["a"]
    assert job.record["reasons"] == {"a": "has 5 bytes, 4 are allowed"}
    assert (job.directory / "work" / "a").exists()


def test_files_beyond_the_limit_of_all_stay_and_are_told(job: Job) -> None:
    script = "printf 123 > a; printf 123 > b; printf 12 > c"

    job.sh(script, outputs=[{"glob": "?"}], max_outputs_bytes=5)

    assert list(kept(job)) == ["a", "c"]
    assert job.record["too_large"] == ["b"]


def test_more_files_than_allowed_are_counted(job: Job) -> None:
    job.sh("for n in 1 2 3 4 5; do : > $n; done", outputs=[{"glob": "*"}], max_outputs=3)

    assert list(kept(job)) == ["1", "2", "3"]
    assert job.record["surplus"] == 2


def test_a_sparse_terabyte_is_refused_by_its_size_alone(job: Job) -> None:
    began = time.monotonic()

    job.sh("truncate -s 1T o", outputs=["o"])

    assert job.record["too_large"] == ["o"]
    assert time.monotonic() - began < 30


def test_a_large_file_stays_in_the_jobs_directory_but_out_of_reach(job: Job) -> None:
    script = "mkdir d; printf 12345 > d/large; printf 1234 > d/small"

    job.sh(script, outputs=["d/large", "d/small"], keep_in_place_above_bytes=4)

    assert kept(job)["d/large"] == hashlib.sha256(b"12345").hexdigest()
    places = {each["name"]: each["location"] for each in job.record["outputs"]}
    assert places == {"d/large": "remote", "d/small": "repository"}
    assert (job.directory / "in_place" / "d" / "large").read_text() == "12345"
    assert not (job.directory / "work" / "d" / "large").exists()
    assert not (job.directory / "outputs" / "d" / "large").exists()


def test_a_file_that_grows_while_it_is_measured_is_refused(job: Job) -> None:
    """Somebody else has it open, and writes without end: the job ends all the same."""
    script = "cd work; truncate -s 100M o; echo up; while [ ! -e ../go ]; do :; done"
    process = job.start(["/bin/sh", "-c", script], outputs=["o"])
    eventually(job.said, "the program to run")
    with (job.directory / "work" / "o").open("ab", buffering=0) as held:
        (job.directory / "go").touch()
        eventually((job.directory / "outputs" / "o").exists, "the file to be moved")
        while process.poll() is None:
            held.write(bytes(4096))

    assert process.returncode == 0
    assert (job.record["outputs"], job.record["changing"]) == ([], ["o"])
    assert not (job.directory / "outputs" / "o").exists()
