"""The runtimes that this machine has, in Slurm batch jobs of root and of an ordinary user: one suite for all."""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Callable

import pytest

from aiida_byoc.runtimes import in_job
from lab import slurm
from lab.paths import LabPaths
from lab.process import wait_until
from tests.engine.batch import RUNTIMES, Site, left_of
from tests.engine.driving import OUT_OF_TIME, until_none

ADDED = {"bubblewrap": {"PWD"}, "charliecloud": {"CH_RUNNING"}, "podman": {"HOSTNAME"}}
"""Variables that a runtime adds to those that are asked for."""

REPORT = """
import json, os, sys
def refused(path):
    try: open(path, "w").close()
    except OSError: return True
    return False
json.dump({
    "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "stdin": sys.stdin.read(),
    "refused": [path for path in ("/x", "/etc/x", "/usr/bin/x", "/run/x") if refused(path)],
    "tmp": not refused(os.path.join("/tmp", "x")),
}, sys.stdout)
sys.stderr.write("to stderr")
os.mkdir("deep")
open("deep/result", "w").write("42")
sys.exit(5)
"""
HOSTILE = ["", "a b", "$(id)", "'", '"', "\\", "*", "{status_fd}", "--", "-n", "ä"]

_durations = itertools.count(1)


@pytest.fixture
def word() -> str:
    """A word for a command line that tells its process from all others of this machine."""
    return f"6{next(_durations)}.{os.getpid()}"


def test_a_program_gets_what_is_its_own_and_nothing_else(site: Site, runtime: str) -> None:
    """Its words and variables literally, `/work`, its status and outputs; what it leaves belongs to the job's user."""
    env = {
        "PATH": "/usr/bin",
        "HOME": "/work",
        "EMPTY": "",
        "ODD": " 'a' \"$HOME\" `id` # \\ \t ",
        "Q": "'q'",
    }

    batch = site.submit(
        runtime, "python3", "-c", REPORT, *HOSTILE, env=env, outputs=["deep/result"]
    )

    facts = batch.ended()
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "5:0")
    report = batch.report
    added = {name: report["env"].pop(name) for name in ADDED[runtime] if name in report["env"]}
    assert set(added) <= ADDED[runtime]
    assert report == {
        "argv": HOSTILE,
        "env": env,
        "cwd": "/work",
        "stdin": "",
        "refused": ["/x", "/etc/x", "/usr/bin/x", "/run/x"],
        "tmp": True,
    }
    assert batch.job.said("stderr") == "to stderr"
    record = batch.job.record
    assert (record["container_started"], record["exit_code"]) == (True, 5)
    assert [output["name"] for output in record["outputs"]] == ["deep/result"]
    result = batch.job.directory / "outputs" / "deep" / "result"
    assert (result.read_text(), result.stat().st_uid) == ("42", pwd.getpwnam(site.user).pw_uid)
    assert record["usage"]["peak_rss_mib"] > 5


def test_inputs_are_read_and_cannot_be_changed(site: Site, runtime: str) -> None:
    """Though the job's user may write there."""
    shared = site.place / f"shared-{runtime}"
    (shared / "set").mkdir(parents=True, exist_ok=True)
    for path in (shared / "file", shared / "set" / "a b"):
        path.write_text(path.name)
        path.chmod(0o666)
    for path in (shared, shared / "set"):
        path.chmod(0o777)
    inputs = [
        {"name": "d/file", "place": "inputs/000", "source": str(shared / "file")},
        {
            "name": "set",
            "place": "inputs/001",
            "source": str(shared / "set"),
            "within": [str(shared)],
        },
    ]
    script = """
        cat d/file 'set/a b'
        for f in d/file 'set/a b' set/new; do (echo changed > "$f") 2> /dev/null || echo ' refused'; done
        echo x > d/mine && cat d/mine
    """

    batch = site.submit(runtime, "sh", "-c", script, inputs=inputs)

    assert batch.ended()["ExitCode"] == "0:0", batch.job.said("stderr")
    assert batch.job.said() == "filea b" + " refused\n" * 3 + "x\n"
    assert (shared / "file").read_text() == "file"
    assert [path.name for path in (shared / "set").iterdir()] == ["a b"]


def test_gpus_and_scratch_space_reach_the_program(
    site: Site, runtime: str, paths: LabPaths
) -> None:
    """Slurm's choice of a GPU, and a directory of the job's own that the program can write to and that is not kept."""
    script = "touch /scratch/mine; mkdir /scratch/shut; chmod 0 /scratch/shut; ls -A /scratch; env"
    asked = {"gpus": 1, "scratch": {"mib": 7, "place": None}}

    batch = site.submit(
        runtime, "sh", "-c", script, slurm=["--gres=gpu:1"], scratch=True, job=asked
    )

    assert batch.ended()["JobState"] == "COMPLETED", batch.job.said("stderr")
    said = batch.job.said().splitlines()
    assert said[:2] == ["mine", "shut"]
    assert {"BYOC_SCRATCH=/scratch", "BYOC_SCRATCH_MIB=7"} <= set(said)
    assert {"CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"} & set(said)
    assert left_of(batch, paths.name) == []


def test_the_status_of_a_program_is_the_jobs(site: Site, runtime: str) -> None:
    """Also one that the runtime itself uses for something else, and that of a signal."""
    scripts = {f"exit {status}": status for status in (1, 125, 126, 127, 255)}
    scripts |= {"kill -KILL $$": 137, "kill -SEGV $$": 139, "kill -TERM $$": 143}
    batches = {script: site.submit(runtime, "sh", "-c", script) for script in scripts}

    codes = {script: batch.ended()["ExitCode"] for script, batch in batches.items()}

    assert codes == {script: f"{status}:0" for script, status in scripts.items()}
    told = {script: batch.job.record["exit_code"] for script, batch in batches.items()}
    assert told == scripts


def test_a_program_that_cannot_be_started_is_told_from_one_that_failed(
    site: Site, runtime: str
) -> None:
    files = {"bad-interpreter": "#!/no/such/shell\n"}
    programs = ("no-such-program", "/etc/passwd", "./bad-interpreter")
    batches = {program: site.submit(runtime, program, files=files) for program in programs}

    for program, batch in batches.items():
        assert batch.ended()["ExitCode"] == f"{in_job.NOT_STARTED}:0"
        record = batch.job.record
        assert (record["container_started"], record["runtime_usable"]) == (False, True)
        assert program in record["message"]


def test_a_runtime_that_is_not_there_is_told_from_both(site: Site, runtime: str) -> None:
    batch = site.submit(runtime, "true", slurm=["--export=PATH=/nowhere"])

    assert batch.ended()["ExitCode"] == f"{in_job.UNUSABLE}:0"
    record = batch.job.record
    assert (record["container_started"], record["runtime_usable"]) == (False, False)
    assert "is not on the compute node's PATH" in record["message"]


def test_a_signal_to_the_job_reaches_the_program(site: Site, runtime: str) -> None:
    """It may end in order; its status counts."""
    script = 'trap "echo in order; exit 7" TERM; echo up; while :; do sleep 0.1; done'
    batch = site.submit(runtime, "sh", "-c", script)
    batch.until_said("up")

    batch.scancel("--signal=TERM", "--batch")

    assert batch.ended()["ExitCode"] == "7:0"
    assert batch.job.said() == "up\nin order\n"
    assert batch.job.record["exit_code"] == 7


def test_output_is_seen_as_it_comes_and_a_restarted_node_daemon_changes_nothing(
    site: Site, runtime: str, paths: LabPaths, cluster: slurm.Slurm
) -> None:
    script = "echo up; while [ ! -e go ]; do sleep 0.1; done; echo done"
    batch = site.submit(runtime, "sh", "-c", script)
    batch.until_said("up")
    node = batch.facts["NodeList"]

    slurm.restart_node(paths, node)
    (batch.job.directory / "work" / "go").touch()

    assert batch.ended()["ExitCode"] == "0:0"
    assert batch.job.said() == "up\ndone\n"


def test_nothing_is_left_of_a_cancelled_job(
    site: Site, runtime: str, paths: LabPaths, word: str
) -> None:
    """Even if its program will not hear of it."""
    batch = site.submit(runtime, "sh", "-c", f'trap "" TERM; echo up; sleep {word}; sleep {word}')
    batch.until_said("up")
    wait_until(lambda: left_of(batch, paths.name, word), 30, "the program to be seen")

    batch.scancel()

    batch.until("CANCELLED")
    until_none(lambda: left_of(batch, paths.name, word))


def test_nothing_is_left_of_a_job_whose_program_was_killed(
    site: Site, runtime: str, paths: LabPaths, word: str
) -> None:
    """The program of the job, which would have cleaned up."""
    batch = site.submit(runtime, "sh", "-c", f"echo up; sleep {word}")
    batch.until_said("up")

    batch.scancel("--signal=KILL", "--batch")

    assert batch.ended()["JobState"] in {"FAILED", "CANCELLED"}
    assert not (batch.job.directory / in_job.RECORD).exists()
    until_none(lambda: left_of(batch, paths.name, word))


def test_nothing_is_left_of_jobs_that_took_too_long(
    users: dict[str, Site], paths: LabPaths, scontrol: Callable[..., str]
) -> None:
    """All at once: Slurm looks at its clock every 30 s."""
    script = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
    batches = [
        site.submit(runtime, "sh", "-c", script) for site in users.values() for runtime in RUNTIMES
    ]
    for batch in batches:
        batch.until_said("up")

    for batch in batches:
        scontrol("update", f"jobid={batch.slurm_job}", OUT_OF_TIME)

    for batch in batches:
        batch.until("TIMEOUT", seconds=90)
    until_none(lambda: [each for batch in batches for each in left_of(batch, paths.name)])
