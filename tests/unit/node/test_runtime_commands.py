"""How each runtime is started, option by option: what is asked of it must be what the table says, and nothing else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.runtimes import RUNTIMES, Container, Launch
from aiida_byoc.runtimes.in_job.ending import ending
from aiida_byoc.runtimes.in_job.placeholders import Placeholders

ROOTFS = "/store/unpacked/x/rootfs"
HALF = str(128 * 2**20 // 2)

APPTAINER = {
    "--quiet": None,
    "exec": None,
    "--containall": None,  # /tmp, /dev, home, pid, ipc and environment of its own
    "--cleanenv": None,
    "--no-eval": None,  # no shell reads the values of variables
    "--no-home": None,
    "--home": "{directory}/work:/work",  # only says what HOME is
    "--no-privs": None,
    "--uts": None,
    "--hostname": "{slurm_job}",
    "--net": None,
    "--network": "none",
    "--bind": "{directory}/work:/work",
    "--pwd": "/work",
    ROOTFS: None,
}
STEP = {"--nodes": "1", "--ntasks": "1", "--cpus-per-task": "{cpus}", "--input": "none"}
COMMANDS: dict[str, dict[str, Any]] = {
    "apptainer": APPTAINER,
    "singularity": APPTAINER,
    "pyxis": {
        **STEP,
        "--export": "ALL",
        "--container-image": "/store/unpacked/x/rootfs.squashfs",
        "--container-mounts": "{directory}/work:/work",
        "--container-workdir": "/work",
        "--container-readonly": None,
        "--no-container-mount-home": None,
        "--no-container-remap-root": None,
        "--no-container-entrypoint": None,
        "--container-env": "{env_names}",
        "--container-unshare": "net,ipc,uts",
    },
    "slurm-oci": {**STEP, "--export": "NIL", "--container": "{runtime}"},
}
GRANTED: dict[str, dict[str, Any]] = {
    "apptainer": {"--net": ..., "--network": ..., "--nv": None},
    "singularity": {"--net": ..., "--network": ..., "--nv": None},
    "pyxis": {"--container-unshare": "ipc,uts"},
    "slurm-oci": {},
}
"""What differs for a job with network and GPUs; `...`: is not there."""


def launch(name: str, **granted: Any) -> Launch:
    return RUNTIMES[name].launch(Container(rootfs=ROOTFS, memory_mib=128, **granted))


def options(command: Any) -> dict[str, str | None]:
    """Options and their values; a word without `=` has none."""
    assert all(isinstance(word, str) for word in command)
    parsed = {word.partition("=")[0]: word.partition("=")[2] or None for word in command[1:]}
    assert len(parsed) == len(command) - 1, "an option twice"
    return parsed


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_line_is_what_the_table_says(name: str) -> None:
    command = launch(name).command

    assert command[0] == RUNTIMES[name].PROGRAMS[0]
    assert options(command) == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_grant_changes_what_it_is_about(name: str) -> None:
    expected = {**COMMANDS[name], **GRANTED[name]}

    granted = options(launch(name, network=True, gpus=1).command)

    assert granted == {option: value for option, value in expected.items() if value is not ...}


@pytest.mark.parametrize("name", RUNTIMES)
def test_no_value_of_a_variable_is_on_a_command_line_or_in_a_name(name: str) -> None:
    """Every user of a compute node can read those; a launch is made before any value is known."""
    text = json.dumps(launch(name).to_json())

    assert "/work" in text
    assert set(Container.__dataclass_fields__) & {"env", "argv"} == set()


@pytest.mark.parametrize("name", RUNTIMES)
def test_scratch_is_mounted_only_when_it_was_asked_for(name: str) -> None:
    asked, unasked = (json.dumps(launch(name, scratch=each).to_json()) for each in (True, False))

    assert ("/scratch" in asked, "/scratch" in unasked) == (True, False)


STARTED, NOT_STARTED, UNUSABLE = (255, True), (None, True), (None, False)


@pytest.mark.parametrize(
    ("name", "said", "meaning"),
    [
        ("apptainer", 'FATAL:   "nope": executable file not found in $PATH', NOT_STARTED),
        ("apptainer", "FATAL:   while extracting /image: root filesystem failed", UNUSABLE),
        ("apptainer", "Traceback (most recent call last):", STARTED),
        ("singularity", "FATAL:   container creation failed: mount error", UNUSABLE),
        ("pyxis", "slurmstepd: error: execve(): nope: No such file or directory", NOT_STARTED),
        ("pyxis", "slurmstepd: error: pyxis: couldn't start container", UNUSABLE),
        ("pyxis", "srun: unrecognized option '--container-image=x'", UNUSABLE),
        ("pyxis", "srun: error: n1: task 0: Exited with exit code 255", STARTED),
        ("slurm-oci", "slurmstepd: error: container setup failed: x", UNUSABLE),
        ("slurm-oci", "srun: error: n1: task 0: Exited with exit code 255", STARTED),
    ],
)
def test_what_a_runtime_says_tells_whose_fault_it_is(name: str, said: str, meaning: Any) -> None:
    last = f"before\n{said}\nsrun: error: n1: task 0: Exited with exit code 1"

    code, _, usable = ending(launch(name).to_json(), "nope", {}, 255, last)

    assert (code, usable) == meaning


@pytest.mark.skipif(shutil.which("runc") is None, reason="no runc on PATH")
def test_the_bundle_of_slurm_is_one_that_an_oci_runtime_runs(
    rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm would: the program's words filled in, the rest as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    made = RUNTIMES["slurm-oci"].launch(Container(rootfs=str(rootfs), memory_mib=128))
    words = Placeholders({"rootfs": str(rootfs), "processes": 50})
    words.name(env_json=json.dumps(["PATH=/bin", "ODD=\"a'b$(id)"]))
    (text,) = made.files.values()
    bundle = json.loads(words.text(text))
    script = 'cat /proc/self/status; echo "$ODD"; echo x > out; ! echo x > /bin/x; ! echo x > /proc/sys/vm/swappiness'
    bundle["process"]["args"] = ["sh", "-c", script]
    (tmp_path / "config.json").write_text(json.dumps(bundle))

    ran = subprocess.run(
        ["runc", "--root", str(tmp_path / "state"), "run", f"byoc-{os.getpid()}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "\"a'b$(id)" in ran.stdout
    for name, value in {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}.items():
        assert f"{name}:\t{value}\n" in ran.stdout
    left = tmp_path / "work" / "out"
    assert pwd.getpwuid(left.stat().st_uid).pw_name == pwd.getpwuid(os.geteuid()).pw_name


def test_inputs_are_mounted_for_reading_alone() -> None:
    """Those runtimes that this machine has show it themselves (`test_in_job_inputs.py`)."""
    inputs = [("inputs/000", "d/in")]

    for name in ("apptainer", "singularity"):
        command = launch(name, inputs=inputs).command
        assert "--bind={directory}/inputs/000:/work/d/in:ro" in command
    (mounts,) = (
        word for word in launch("pyxis", inputs=inputs).command if "container-mounts" in word
    )
    assert mounts.endswith(",{directory}/inputs/000:/work/d/in:ro")
    bundle = launch("slurm-oci", inputs=inputs).files["{runtime}/config.json"]
    mount = '{"destination": "/work/d/in", "type": "none", "source": "{directory}/inputs/000", "options": '
    assert mount + '["nosuid", "nodev", "rbind", "ro"]}' in bundle
