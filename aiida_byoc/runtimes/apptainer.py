"""Apptainer on the unpacked OCI image, as a sandbox directory; SingularityCE by the same words (`singularity.py`)."""

from __future__ import annotations

from aiida_byoc.runtimes.container import Container, Launch, Word
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    DIRECTORY,
    LOCAL_SCRATCH,
    PATH,
    RUNTIME_DIRECTORY,
    SLURM_JOB,
)

__all__ = ["HELP", "PROGRAMS", "exec_launch", "launch"]

PROGRAMS = ("apptainer",)
HELP = "https://apptainer.org, version 1.1 or newer"


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk."""
    return exec_launch(container, program="apptainer", prefix="APPTAINER")


def exec_launch(container: Container, *, program: str, prefix: str) -> Launch:
    """The words that Apptainer and SingularityCE share.

    `--home` without a home to mount (`--no-home`) only says what `HOME` is. The variables travel in the runtime's
    environment, and `--no-eval` keeps a shell from reading their values. `/tmp` is part of the session directory, whose
    size (64 MiB) the site sets in `apptainer.conf`. Its exit status is the program's, or 255 after a line `FATAL:`.
    """
    granted: list[Word] = [] if container.network else ["--net", "--network=none"]
    if container.gpus:
        granted.append("--nv")
    if container.scratch:
        granted.append(f"--bind={LOCAL_SCRATCH}:/scratch")
    return Launch(
        programs=(program,),
        command=[
            *(program, "--quiet", "exec", "--containall", "--cleanenv", "--no-eval"),
            *("--no-home", f"--home={DIRECTORY}/{WORK}:/work", "--no-privs"),
            *("--uts", f"--hostname={SLURM_JOB}"),
            *granted,
            *(f"--bind={DIRECTORY}/{WORK}:/work", "--pwd=/work"),
            *(f"--bind={DIRECTORY}/{place}:/work/{name}:ro" for place, name in container.inputs),
            container.rootfs,
        ],
        env={"PATH": PATH, f"{prefix}_CONFIGDIR": RUNTIME_DIRECTORY},
        env_prefix=f"{prefix}ENV_",
        not_started=r"^FATAL:\s.*(?:executable file not found|no such file or directory|permission denied)",
        unusable=r"^FATAL:\s",
    )
