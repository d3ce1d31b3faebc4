"""The orders a product may give. `docs/contracts/command-submit-job.md` and `command-cancel-job.md`.

What is checked here needs no knowledge of a node; ceilings, queues, images and tenants are checked by the
node's policy (`aiida_byoc.commands.policy`), last, on the node.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from aiida_byoc.contracts.array import MAX_TASKS, ArrayTasks, ArrayWorkload, TaskFile
from aiida_byoc.contracts.base import PLAIN, Order, UtcTime
from aiida_byoc.contracts.container import Checkpoint, ContainerWorkload
from aiida_byoc.contracts.files import (
    EarlierOutput,
    JobInput,
    OutputFile,
    OutputPattern,
    PathInput,
    TextInput,
    UrlInput,
)
from aiida_byoc.contracts.identity import Name, Traceparent, trace_id_of
from aiida_byoc.contracts.workchain import WorkchainWorkload

__all__ = [
    "CONTAINED",
    "MAX_COMMAND_BYTES",
    "ArrayTasks",
    "ArrayWorkload",
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
    "TaskFile",
    "TaskRange",
    "TextInput",
    "UrlInput",
    "WorkchainWorkload",
]

MAX_COMMAND_BYTES = 256 * 1024
"""Upper bound of a command's body on the wire, in bytes."""


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


CONTAINED = ContainerWorkload | ArrayWorkload
"""Workloads that run containers: what they have in common has the same names in both."""

Workload = Annotated[
    ContainerWorkload | WorkchainWorkload | ArrayWorkload,
    Field(discriminator="kind", description="told apart by `kind`"),
]


class RetryPolicy(Order):
    """When the node may start another attempt by itself; bounded by its policy."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 1
    on: Annotated[
        list[Literal["oom", "timeout", "node_fail", "preempted", "tasks_failed"]],
        Field(max_length=5),
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

    @field_validator("workload")
    @classmethod
    def _an_array_fits_its_shape(cls, workload: Workload, others: ValidationInfo) -> Workload:
        shape = others.data.get("resource_shape")
        if not isinstance(workload, ArrayWorkload) or shape is None:
            return workload
        if shape.nodes * shape.tasks_per_node > 1:
            raise ValueError("an array needs nodes and tasks_per_node of 1 in resource_shape")
        if (workload.task_seconds or 0) > shape.walltime_seconds:
            raise ValueError("task_seconds must not exceed resource_shape.walltime_seconds")
        return workload

    @field_validator("retry_policy")
    @classmethod
    def _arrays_alone_have_tasks(cls, policy: RetryPolicy, others: ValidationInfo) -> RetryPolicy:
        workload = others.data.get("workload")
        if "tasks_failed" in policy.on and not isinstance(workload, ArrayWorkload | None):
            raise ValueError("on: only an array has tasks_failed")
        return policy

    @property
    def container(self) -> ContainerWorkload | ArrayWorkload:
        """The workload of a command that is known to run containers."""
        if not isinstance(self.workload, CONTAINED):
            raise TypeError(f"the workload is a {self.workload.kind}")
        return self.workload


class TaskRange(Order):
    """Tasks of an array by their numbers, both ends included."""

    first: Annotated[int, Field(ge=0, le=MAX_TASKS - 1)]
    last: Annotated[int, Field(ge=0, le=MAX_TASKS - 1)]

    @field_validator("last")
    @classmethod
    def _does_not_end_before_it_begins(cls, last: int, others: ValidationInfo) -> int:
        if last < others.data.get("first", last):
            raise ValueError("must not be less than first")
        return last


class CancelJobCommand(Order):
    """Stop this job, wherever it is, or tasks of it. Idempotency key: (tenant_id, "cancel", job_id, tasks)."""

    schema_version: Literal["1"]
    tenant_id: Name
    workspace_id: Name
    job_id: Name
    management_node_id: Name
    tasks: (
        Annotated[
            list[TaskRange],
            Field(min_length=1, max_length=1000, description="of an array; default: the whole job"),
        ]
        | None
    ) = None
    reason: Annotated[str, Field(min_length=1, max_length=500), PLAIN] | None = None
    requested_by: Requester
    traceparent: Annotated[Traceparent, AfterValidator(_traceparent)] | None = None
