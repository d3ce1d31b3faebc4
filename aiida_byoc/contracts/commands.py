"""The orders a product may give. `docs/contracts/command-submit-job.md` and `command-cancel-job.md`.

What is checked here needs no knowledge of a node; ceilings, queues, images and tenants are checked by the
node's policy (`aiida_byoc.commands.policy`), last, on the node.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aiida_byoc.contracts.base import PLAIN, Order, UtcTime
from aiida_byoc.contracts.files import (
    EarlierOutput,
    InputFile,
    JobInput,
    OutputFile,
    OutputPattern,
    PathInput,
    PromisedOutput,
    TextInput,
    UrlInput,
)
from aiida_byoc.contracts.identity import Name, Traceparent, trace_id_of
from aiida_byoc.contracts.workchain import WorkchainWorkload

__all__ = [
    "MAX_COMMAND_BYTES",
    "CancelJobCommand",
    "Checkpoint",
    "ContainerWorkload",
    "EarlierOutput",
    "ExecutionProfile",
    "JobInput",
    "OutputFile",
    "OutputPattern",
    "PathInput",
    "Requester",
    "ResourceShape",
    "RetryPolicy",
    "SubmitJobCommand",
    "TextInput",
    "UrlInput",
    "WorkchainWorkload",
]

MAX_COMMAND_BYTES = 256 * 1024
"""Upper bound of a command's body on the wire, in bytes."""

_RESERVED_ENVIRONMENT = re.compile(
    r"^(LD_.*|PATH|PYTHON.*|BASH_ENV|ENV|IFS|BYOC_.*|SLURM_.*|SBATCH_.*|SINGULARITY.*|APPTAINER.*|.*_PROXY)$"
)


def _environment_name(value: str) -> str:
    if _RESERVED_ENVIRONMENT.match(value):
        raise ValueError("is reserved: the loader, the scheduler and the runtime use it")
    return value


EnvironmentName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$"),
    AfterValidator(_environment_name),
]


def _traceparent(value: str) -> str:
    trace_id_of(value)
    return value


class ExecutionProfile(Order):
    """Where the job may run: names of entries in the node's policy, never raw scheduler words."""

    queue_name: Name
    qos: Name | None = None
    account: Name | None = None


def _divides_cpu(tasks: int, others: ValidationInfo) -> int:
    if others.data.get("cpu", tasks) % tasks:
        raise ValueError("must divide cpu: every task gets as many processors")
    return tasks


class ResourceShape(Order):
    """What one attempt may use. Positive integers; the node's policy sets the ceilings."""

    cpu: Annotated[int, Field(ge=1, le=4096, description="processors per node")]
    memory_mib: Annotated[int, Field(ge=1, le=2**24, description="memory per node, MiB")]
    walltime_seconds: Annotated[int, Field(ge=1, le=31_536_000, description="limit per attempt, s")]
    gpus: Annotated[int, Field(ge=1, le=64, description="GPUs per node")] | None = None
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    tasks_per_node: Annotated[
        int,
        Field(ge=1, le=4096, description="containers on each node, which share `cpu` evenly"),
        AfterValidator(_divides_cpu),
    ] = 1
    scratch_mib: (
        Annotated[int, Field(ge=1, le=2**30, description="space on each node's own disk, MiB")]
        | None
    ) = None


_IMAGE = (
    r"^(?=.{1,255}$)[a-z0-9]+(?:[._-][a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
)


def _image(value: str) -> str:
    if not re.fullmatch(_IMAGE, value):
        raise ValueError(
            "must be repository@sha256:<64 hex> or repository:tag (OCI reference, no spaces)"
        )
    return value


Image = Annotated[
    str,
    Field(max_length=255, examples=["localhost/byoc/demo:1"]),
    AfterValidator(_image),
]


class Checkpoint(Order):
    """The program can be stopped and started anew: when it hears the signal it saves what the next attempt needs."""

    signal: Literal["USR1", "USR2", "TERM", "INT"] = "USR1"
    seconds_before: Annotated[
        int, Field(ge=1, le=65_535, description="before the end of the walltime, s")
    ] = 60


class ContainerWorkload(Order):
    """One container, run once per attempt, in `/work`, with nothing else of the machine but what it asks for here."""

    kind: Literal["container"]
    image: Image
    argv: Annotated[
        list[Annotated[str, Field(max_length=32 * 1024), PLAIN]],
        Field(min_length=1, max_length=256, description="program and arguments, passed literally"),
    ]
    env: Annotated[
        dict[EnvironmentName, Annotated[str, Field(max_length=32 * 1024), PLAIN]],
        Field(max_length=256),
    ] = {}
    inputs: Annotated[list[InputFile], Field(max_length=256)] = []
    outputs: Annotated[list[PromisedOutput], Field(max_length=64)] = []
    network: Annotated[
        Literal["none", "host"],
        Field(description="`host`: the machine's network, if the policy grants it in that queue"),
    ] = "none"
    checkpoint: Checkpoint | None = None

    @model_validator(mode="after")
    def _names_do_not_collide(self) -> ContainerWorkload:
        promised = [file.name for file in self.outputs if isinstance(file, OutputFile)]
        inputs = [file.name for file in self.inputs]
        for kind, names in (("inputs", inputs), ("outputs", promised)):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} must not name the same file twice")
            for name in names:
                if any(other.startswith(name + "/") for other in names):
                    raise ValueError(f"{kind}: {name!r} is both a file and a directory")
        for file in self.inputs:
            is_fixed = not isinstance(file, TextInput)
            if is_fixed and any(f"{name}/".startswith(f"{file.name}/") for name in promised):
                raise ValueError(f"outputs: {file.name!r} is an input, which the job cannot change")
        return self


Workload = Annotated[
    ContainerWorkload | WorkchainWorkload,
    Field(discriminator="kind", description="told apart by `kind`"),
]


class RetryPolicy(Order):
    """When the node may start another attempt by itself; bounded by its policy."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 1
    on: Annotated[
        list[Literal["oom", "timeout", "node_fail", "preempted"]], Field(max_length=4)
    ] = []


class Requester(Order):
    """Who asked, as the product knows them."""

    user_id: Annotated[str, Field(min_length=1, max_length=128), PLAIN]


class SubmitJobCommand(Order):
    """Run this workload once. Idempotency key: (tenant_id, "submit", header `Idempotency-Key`)."""

    schema_version: Literal["1"]
    tenant_id: Name
    workspace_id: Name
    job_id: Annotated[Name, Field(description="minted by the product, unique per tenant")]
    management_node_id: Name
    execution_profile: ExecutionProfile
    resource_shape: ResourceShape
    workload: Workload
    retry_policy: RetryPolicy = RetryPolicy()
    deadline: UtcTime | None = None
    requested_by: Requester
    traceparent: Annotated[Traceparent, AfterValidator(_traceparent)] | None = None

    @field_validator("workload")
    @classmethod
    def _signal_comes_after_the_start(cls, workload: Workload, others: ValidationInfo) -> Workload:
        checkpoint = workload.checkpoint if isinstance(workload, ContainerWorkload) else None
        shape = others.data.get("resource_shape")
        if checkpoint and shape and checkpoint.seconds_before >= shape.walltime_seconds:
            raise ValueError(
                "checkpoint.seconds_before must be less than resource_shape.walltime_seconds"
            )
        return workload

    @property
    def container(self) -> ContainerWorkload:
        """The workload of a command that is known to run a container."""
        if not isinstance(self.workload, ContainerWorkload):
            raise TypeError(f"the workload is a {self.workload.kind}")
        return self.workload


class CancelJobCommand(Order):
    """Stop this job, wherever it is. Idempotency key: (tenant_id, "cancel", job_id)."""

    schema_version: Literal["1"]
    tenant_id: Name
    workspace_id: Name
    job_id: Name
    management_node_id: Name
    reason: Annotated[str, Field(min_length=1, max_length=500), PLAIN] | None = None
    requested_by: Requester
    traceparent: Annotated[Traceparent, AfterValidator(_traceparent)] | None = None
