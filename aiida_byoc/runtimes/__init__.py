"""Container runtimes: one module each, a container in, a command line out.

A runtime knows nothing of AiiDA or Slurm: `aiida_byoc.workflows.attempt` puts its command line into the job's
specification, and `runtimes/in_job` runs it on the compute node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiida_byoc.runtimes import bubblewrap
from aiida_byoc.runtimes.container import Container

__all__ = ["RUNTIMES", "Container", "Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the node needs to know of a runtime.

    Attributes:
        program: the executable that must be on the compute node's PATH.
        command_line: the command line to run in the job's directory, with the container's environment as its own.
    """

    program: str
    command_line: Callable[[Container], list[str]]


RUNTIMES: dict[str, Runtime] = {
    "bubblewrap": Runtime(program=bubblewrap.PROGRAM, command_line=bubblewrap.command_line),
}
