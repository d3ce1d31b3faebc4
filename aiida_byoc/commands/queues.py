"""The queues of the policy: where jobs run, in Slurm's words, and the most that one of them may ask for."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.problems import FieldError
from aiida_byoc.runtimes import RUNTIMES

__all__ = ["Ceilings", "Queue", "QueueCeilings", "RuntimeName", "over_the_ceilings"]

SlurmWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A partition, account or QOS: goes into the job script, so nothing that a shell could read otherwise."""

Gres = Annotated[str, StringConstraints(pattern=r"^gpu(:[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]
"""A generic resource of Slurm's (gres.conf(5)), with its type or without."""

Place = Annotated[
    str, StringConstraints(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$", max_length=200)
]
"""A directory on the compute nodes."""


def _known_runtime(name: str) -> str:
    if name not in RUNTIMES:
        raise ValueError(f"{name!r} is unknown; use one of {', '.join(RUNTIMES)}")
    return name


RuntimeName = Annotated[str, AfterValidator(_known_runtime)]


class Ceilings(Table):
    """The most that one job may ask for."""

    cpu: int = Field(ge=1)
    memory_mib: int = Field(ge=1)
    walltime_seconds: int = Field(ge=1)
    gpus: int = Field(ge=0, default=0)
    nodes: int = Field(ge=1, default=1)
    scratch_mib: int = Field(ge=0, default=0)
    attempts: int = Field(ge=1, default=1)
    processes: int = Field(ge=1, default=4096)
    """Processes and threads in one container; not asked for, every container gets so many."""


class QueueCeilings(Table):
    """What counts in a queue instead of the node's ceilings, more or less."""

    cpu: int | None = Field(ge=1, default=None)
    memory_mib: int | None = Field(ge=1, default=None)
    walltime_seconds: int | None = Field(ge=1, default=None)
    gpus: int | None = Field(ge=0, default=None)
    nodes: int | None = Field(ge=1, default=None)
    scratch_mib: int | None = Field(ge=0, default=None)
    attempts: int | None = Field(ge=1, default=None)
    processes: int | None = Field(ge=1, default=None)


class Queue(Table):
    """One queue of the policy: a partition, the accounts and QOS that may be named with it, and what its jobs get."""

    partition: SlurmWord
    runtime: RuntimeName | None = None
    """`None`: the policy's."""
    network: bool = False
    """Whether a job may ask for the machine's network."""
    accounts: dict[Name, SlurmWord] = {}
    qos: dict[Name, SlurmWord] = {}
    default_account: SlurmWord | None = None
    default_qos: SlurmWord | None = None
    gres: Gres = "gpu"
    """What Slurm calls the GPUs that jobs of this queue get."""
    scratch: Place | None = None
    """Where on its compute nodes jobs get scratch space; `None`: the job's TMPDIR, else `/tmp`."""
    ceilings: QueueCeilings = QueueCeilings()

    def most(self, node: Ceilings) -> Ceilings:
        """The ceilings in this queue, on a node that has these."""
        return node.model_copy(update=self.ceilings.model_dump(exclude_none=True))


def over_the_ceilings(command: SubmitJobCommand, ceilings: Ceilings) -> list[FieldError]:
    """What a command asks for beyond what may be asked for."""
    shape = command.resource_shape
    asked = {
        "resource_shape.cpu": (shape.cpu, ceilings.cpu),
        "resource_shape.memory_mib": (shape.memory_mib, ceilings.memory_mib),
        "resource_shape.walltime_seconds": (shape.walltime_seconds, ceilings.walltime_seconds),
        "resource_shape.gpus": (shape.gpus or 0, ceilings.gpus),
        "resource_shape.nodes": (shape.nodes, ceilings.nodes),
        "resource_shape.scratch_mib": (shape.scratch_mib or 0, ceilings.scratch_mib),
        "retry_policy.max_attempts": (command.retry_policy.max_attempts, ceilings.attempts),
    }
    return [
        FieldError(
            field=field,
            message=f"exceeds the node's ceiling of {ceiling}",
            remedy=f"ask for at most {ceiling}" if ceiling else "leave it out",
        )
        for field, (value, ceiling) in asked.items()
        if value > ceiling
    ]
