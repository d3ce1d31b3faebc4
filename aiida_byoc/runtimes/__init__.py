"""Container runtimes: one module each; a container in, how to start it out.

A runtime knows nothing of AiiDA or Slurm: `aiida_byoc.workflows.attempt` puts its answer into the job's specification,
and `runtimes/in_job` carries it out on the compute node.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from aiida_byoc.runtimes import (
    apptainer,
    bubblewrap,
    charliecloud,
    podman,
    pyxis,
    singularity,
    slurm_oci,
)
from aiida_byoc.runtimes.container import Container, Launch, Runtime
from aiida_byoc.runtimes.in_job.placeholders import Placeholders

__all__ = [
    "FOR_TASKS",
    "FROM_SQUASHFS",
    "OVERHEAD_MIB",
    "RUNTIMES",
    "Container",
    "Launch",
    "Runtime",
    "missing",
]

RUNTIMES: dict[str, Runtime] = {
    "bubblewrap": bubblewrap,
    "charliecloud": charliecloud,
    "podman": podman,
    "apptainer": apptainer,
    "singularity": singularity,
    "pyxis": pyxis,
    "slurm-oci": slurm_oci,
}

FOR_TASKS = frozenset({"bubblewrap", "charliecloud", "podman"})
"""Those that run the tasks of a parallel job: a container each, that Slurm's PMI reaches."""

FROM_SQUASHFS = frozenset({"pyxis"})
"""Those that want the image in a single file."""

OVERHEAD_MIB = {"podman": 160}
"""What a runtime's own processes take beside the program, MiB a container: Slurm counts them, so it must know.

Measured with podman 4.3.1: up to four processes of 30 to 45 MiB at a time, at the container's start and end.
"""


def missing(name: str) -> list[str]:
    """What a runtime needs and this machine has not: programs on the PATH, files."""
    launch = RUNTIMES[name].launch(Container(rootfs="/image/rootfs", memory_mib=1))
    words = Placeholders({"rootfs": "/", "processes": 1})  # type: ignore[no-untyped-call]
    return [
        *(program for program in launch.programs if not shutil.which(program)),
        *(path for path in map(words.text, launch.needs) if not Path(path).exists()),
    ]
