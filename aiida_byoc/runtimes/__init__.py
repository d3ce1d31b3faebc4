"""Container runtimes: one module each; a container in, how to start it out.

A runtime knows nothing of AiiDA or Slurm: `aiida_byoc.workflows.attempt` puts its answer into the job's specification,
and `runtimes/in_job` carries it out on the compute node.
"""

from __future__ import annotations

import shutil

from aiida_byoc.runtimes import bubblewrap, charliecloud, podman
from aiida_byoc.runtimes.container import Container, Launch, Runtime

__all__ = ["RUNTIMES", "Container", "Launch", "Runtime", "missing_programs"]

RUNTIMES: dict[str, Runtime] = {
    "bubblewrap": bubblewrap,
    "charliecloud": charliecloud,
    "podman": podman,
}


def missing_programs(name: str) -> list[str]:
    """What of a runtime is not on this machine's PATH."""
    return [program for program in RUNTIMES[name].PROGRAMS if not shutil.which(program)]
