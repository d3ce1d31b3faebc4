"""A real Slurm cluster that runs real jobs and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from lab import slurm
from lab.paths import LabPaths
from lab.process import sweep, wait_until
from lab.proctable import belonging


def client(cluster: slurm.Slurm, *command: str) -> str:
    """What a Slurm command prints."""
    environment = {**os.environ, "SLURM_CONF": str(cluster.conf)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def submit(cluster: slurm.Slurm, script: str, *options: str) -> str:
    """Submit a shell script to run in the lab directory; its Slurm job id."""
    place = f"--chdir={cluster.conf.parent}"
    return client(
        cluster, "sbatch", "--parsable", place, "--output=%j.out", *options, "--wrap", script
    )


def state(cluster: slurm.Slurm, job: str) -> str:
    """The state of a job that the controller still remembers."""
    return client(cluster, "squeue", "-h", "--states=all", f"--jobs={job}", "--format=%T")


def await_state(paths: LabPaths, cluster: slurm.Slurm, job: str, expected: str) -> None:
    """Wait for a job to reach a state."""
    wait_until(
        lambda: state(cluster, job) == expected,
        30,
        f"job {job} to be {expected}",
        logs=[paths.logs / "slurmctld.main.log"],
    )


def sockets(paths: LabPaths) -> list[Path]:
    """The Unix sockets that are left below the lab's directories."""
    return [file for place in paths.places() for file in place.rglob("*") if file.is_socket()]


def mounts(paths: LabPaths) -> list[str]:
    """The mounts below the lab's directories."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines for place in paths.places() if f" {place}" in line]


def test_jobs_run_and_the_stop_leaves_nothing(paths: LabPaths) -> None:
    """A job succeeds, one fails with its own code, one is still running at the end."""
    cluster = slurm.start(paths)
    good = submit(cluster, "echo $SLURM_CLUSTER_NAME", "--mem=3G", "--cpus-per-task=4")
    bad = submit(cluster, "exit 5", "--partition=high")
    endless = submit(cluster, "exec sleep 600")

    await_state(paths, cluster, good, "COMPLETED")
    await_state(paths, cluster, bad, "FAILED")
    await_state(paths, cluster, endless, "RUNNING")
    assert (cluster.conf.parent / f"{good}.out").read_text().strip() == paths.name
    assert "ExitCode=5:0" in client(cluster, "scontrol", "show", "job", bad)
    assert cluster.nodes == ["n1", "n2"]

    slurm.stop(paths)

    assert belonging(paths) == {}
    assert sockets(paths) == []
    assert mounts(paths) == []


def test_state_survives_a_restart(paths: LabPaths) -> None:
    """A pending job is not forgotten, and job ids are not handed out again."""
    cluster = slurm.start(paths, nodes=1)
    first = submit(cluster, "true", "--hold")
    slurm.stop(paths, cancel=False)

    cluster = slurm.start(paths, nodes=1)

    assert state(cluster, first) == "PENDING"
    assert int(submit(cluster, "true")) > int(first)


def test_a_crash_of_everything_is_swept(paths: LabPaths) -> None:
    """Jobs outlive daemons that were killed; the sweep ends them, and the cluster starts again."""
    cluster = slurm.start(paths)
    job = submit(cluster, "env -i sleep 600 & exec sleep 600")
    await_state(paths, cluster, job, "RUNNING")
    wait_until(lambda: _commands(paths).count("sleep") == 2, 10, "both processes of the job")
    daemons = [cluster.slurmctld_pid, *cluster.slurmd_pids, cluster.munged_pid]
    steps = [pid for pid, process in belonging(paths).items() if process.command == "slurmstepd"]

    for pid in daemons + steps:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(_commands(paths)) == {"sleep"}, 10, "the daemons to be gone")

    assert sweep(paths) == ["sleep", "sleep"]
    assert belonging(paths) == {}
    assert mounts(paths) == []
    assert slurm.start(paths).nodes == ["n1", "n2"]


def test_clusters_run_side_by_side(paths: LabPaths, tmp_path: Path) -> None:
    """Two labs share neither ports nor jobs, and one's end leaves the other."""
    other = LabPaths(tmp_path / "other")
    try:
        here, there = slurm.start(paths, nodes=1), slurm.start(other, nodes=1)
        job = submit(here, "exec sleep 600")
        await_state(paths, here, job, "RUNNING")

        slurm.stop(other)
        sweep(other)

        assert client(here, "squeue", "-h", "--format=%i") == job
        assert there.conf != here.conf
    finally:
        sweep(other)
        other.discard()


def _commands(paths: LabPaths) -> list[str]:
    return sorted(process.command for process in belonging(paths).values())
