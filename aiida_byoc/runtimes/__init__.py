"""Container runtimes: one module each, a container in, a command line out.

A runtime knows nothing of AiiDA or Slurm: `aiida_byoc.calculations` puts its command line into the job's
specification, and `runtimes/in_job` runs it on the compute node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiida_byoc.runtimes import bubblewrap

__all__ = ["RUNTIMES", "Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the node needs to know of a runtime.

    Attributes:
        program: the executable that must be on the compute node's PATH.
        command_line: (rootfs directory, program and arguments) → the command line to run in the job's directory.
    """

    program: str
    command_line: Callable[[str, list[str]], list[str]]


RUNTIMES: dict[str, Runtime] = {
    "bubblewrap": Runtime(program=bubblewrap.PROGRAM, command_line=bubblewrap.command_line),
}
