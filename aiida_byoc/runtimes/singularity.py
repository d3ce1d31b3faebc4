"""SingularityCE on the unpacked OCI image: Apptainer's words, other names of variables."""

from __future__ import annotations

from aiida_byoc.runtimes.apptainer import exec_launch
from aiida_byoc.runtimes.container import Container, Launch

__all__ = ["HELP", "PROGRAMS", "launch"]

PROGRAMS = ("singularity",)
HELP = "https://sylabs.io/singularity, version 3.10 or newer"


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk."""
    return exec_launch(container, program="singularity", prefix="SINGULARITY")
