"""Pyxis and Enroot: Slurm starts the container itself, as a step of the job, from a squashfs of the unpacked image."""

from __future__ import annotations

from pathlib import PurePath

from aiida_byoc.runtimes.container import SQUASHFS, Container, Launch
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    CPUS,
    DIRECTORY,
    ENV_NAMES,
    LOCAL_SCRATCH,
)

__all__ = ["HELP", "PROGRAMS", "STEP", "UNUSABLE", "launch"]

PROGRAMS = ("srun", "enroot")
HELP = "https://github.com/NVIDIA/pyxis, version 0.24 or newer, Enroot; squashfs-tools here"

STEP = ("srun", "--nodes=1", "--ntasks=1", f"--cpus-per-task={CPUS}", "--input=none")
"""One task with all that the job has."""
UNUSABLE = (
    r"^(?:slurmstepd|srun): error: .*(?:pyxis|spank|container|unrecognized)|^srun: unrecognized"
)
NOT_STARTED = r"^slurmstepd: error: execve\(\): "


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk.

    Enroot gives it the host's processes, `/dev` and `/dev/shm`, and Slurm its `SLURM_*` variables: it is meant for
    users who trust each other. `--container-env` lets our variables win over the image's.
    """
    namespaces = "ipc,uts" if container.network else "net,ipc,uts"
    mounts = [f"{DIRECTORY}/{WORK}:/work", *[f"{LOCAL_SCRATCH}:/scratch"] * container.scratch]
    mounts += [f"{DIRECTORY}/{place}:/work/{name}:ro" for place, name in container.inputs]
    image = PurePath(container.rootfs).with_name(SQUASHFS)
    return Launch(
        programs=PROGRAMS,
        command=[
            *STEP,
            "--export=ALL",
            f"--container-image={image}",
            f"--container-mounts={','.join(mounts)}",
            "--container-workdir=/work",
            "--container-readonly",
            "--no-container-mount-home",
            "--no-container-remap-root",
            "--no-container-entrypoint",
            f"--container-env={ENV_NAMES}",
            f"--container-unshare={namespaces}",
        ],
        inherited=("SLURM_",),
        not_started=NOT_STARTED,
        unusable=UNUSABLE,
    )
