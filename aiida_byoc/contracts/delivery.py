"""What travels between adapter and node besides events, and what clients get back.

`docs/contracts/command-delivery.md`, `event-delivery.md`, `node-heartbeat.md`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from aiida_byoc.contracts.base import PLAIN, Fact, Order, UtcTime
from aiida_byoc.contracts.events import Epoch, JobState, Uuid
from aiida_byoc.contracts.identity import IdempotencyKey, Name
from aiida_byoc.contracts.logs import LogChunk
from aiida_byoc.contracts.problems import Problem
from aiida_byoc.contracts.receipt.envelope import Envelope
from aiida_byoc.contracts.signature import Signature

__all__ = [
    "MAX_EVENT_BATCH",
    "MAX_POLL_SECONDS",
    "Acknowledgement",
    "Command",
    "CommandBatch",
    "CommandVerdict",
    "Heartbeat",
    "JobAcceptance",
    "JobCancellation",
    "JobView",
    "Partition",
    "PollRequest",
    "QuarantinedEvent",
    "Verdict",
]

MAX_POLL_SECONDS = 30
"""Longest time the adapter keeps a poll open, in seconds."""

MAX_EVENT_BATCH = 100
"""Events in one POST: a CloudEvents JSON batch, i.e. an array of events in `seq` order per job."""


class Command(Order):
    """One order on its way to the node. The node trusts none of it and checks everything again."""

    command_id: Uuid
    operation: Literal["submit", "cancel", "inspect", "logs", "receipt"]
    tenant_id: Name
    job_id: Name
    idempotency_key: IdempotencyKey | None = None
    body: Annotated[
        dict[str, JsonValue] | None,
        Field(description="SubmitJobCommand, CancelJobCommand or LogRequest"),
    ] = None
    signature: Annotated[
        Signature | None, Field(description="the product's, over operation, key and body")
    ] = None


class JobAcceptance(Fact):
    """The 202 of a submission: the node has committed it. The same for every replay of its key."""

    job_id: Name
    submission_id: Uuid
    node_id: Name
    accepted_at: UtcTime
    trace_id: str
    status: Literal["accepted"] = "accepted"


class JobCancellation(Fact):
    """The 202 of a cancel: the intent is committed on the node and will be carried out."""

    job_id: Name
    node_id: Name
    requested_at: UtcTime
    status: Literal["cancelling", "cancelled", "already_ended"]


class JobView(Fact):
    """A job as its node knows it now (users' reads belong to the product)."""

    node_id: Name
    job: JobState
    cancel_requested_at: UtcTime | None = None
    delivered_seq: Annotated[
        int, Field(ge=0, description="newest seq the product has acknowledged")
    ]


class Verdict(Order):
    """The node's answer to one command, sent after its transaction has committed."""

    outcome: Literal["accepted", "replayed", "answered", "rejected"]
    acceptance: JobAcceptance | None = None
    cancellation: JobCancellation | None = None
    job: JobView | None = None
    log: LogChunk | None = None
    receipt: Envelope | None = None
    problem: Problem | None = None

    def wire(self) -> dict[str, Any]:
        """The JSON object to send."""
        return self.model_dump(mode="json", exclude_none=True)


class CommandVerdict(Order):
    """A verdict that comes with a poll, and the delivery that it answers."""

    command_id: Uuid
    verdict: Verdict


class PollRequest(Order):
    """How long the node is willing to wait for commands, and how many it takes."""

    wait_seconds: Annotated[int, Field(ge=0, le=MAX_POLL_SECONDS)] = MAX_POLL_SECONDS
    max_commands: Annotated[int, Field(ge=1, le=100)] = 20
    operations: Annotated[
        list[Name],
        Field(max_length=32, description="known to the node beside submit, cancel and inspect"),
    ] = []
    verdicts: Annotated[
        list[CommandVerdict],
        Field(max_length=100, description="on earlier commands, to an adapter that takes them so"),
    ] = []

    def wire(self) -> bytes:
        """The JSON to send; adapters of the version before know of no verdicts here."""
        left_out = None if self.verdicts else {"verdicts"}
        return self.model_dump_json(exclude_none=True, exclude=left_out).encode()


class CommandBatch(Fact):
    """The answer to a poll; empty when the wait ended without a command."""

    commands: list[Command]
    takes_verdicts: Annotated[
        bool | None, Field(description="whether the next poll may bring verdicts along")
    ] = None


class QuarantinedEvent(Fact):
    """An event that will never be applied as it is; its job's stream stops there."""

    submission_id: str | None = None
    seq: int | None = None
    event_id: str | None = None
    code: str
    message: str


class Acknowledgement(Fact):
    """How far the product is: for each job (by submission_id) the next `seq` it wants. Cumulative.

    `missing_from` names the jobs of which the product lacks something before that (it was restored from a backup):
    the lowest `seq` that it lacks.
    """

    next_seq: dict[str, int]
    quarantined: list[QuarantinedEvent] = []
    missing_from: dict[str, int] | None = None


class Partition(Order):
    """What a partition of the cluster has, and how much of it is free now, as `sinfo` says."""

    name: Annotated[str, Field(max_length=64), PLAIN]
    up: bool
    nodes: Annotated[int, Field(ge=0)]
    nodes_free: Annotated[int, Field(ge=0)]
    cpus: Annotated[int, Field(ge=0)]
    cpus_free: Annotated[int, Field(ge=0)]
    gpus: Annotated[int, Field(ge=0)] = 0


class Heartbeat(Order):
    """The node's sign of life, every few seconds."""

    sent_at: UtcTime
    versions: Annotated[dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=32)]
    queues: Annotated[list[Name], Field(max_length=256)] = []
    runtimes: Annotated[list[Name], Field(max_length=16)] = []
    jobs_active: Annotated[int, Field(ge=0)] = 0
    events_undelivered: Annotated[int, Field(ge=0)] = 0
    oldest_undelivered_seconds: Annotated[int, Field(ge=0)] = 0
    draining: bool = False
    epoch: Epoch | None = None
    jobs_quarantined: Annotated[int, Field(ge=0)] | None = None
    repairs: Annotated[dict[Name, Annotated[int, Field(ge=0)]], Field(max_length=32)] | None = None
    partitions: Annotated[list[Partition], Field(max_length=64)] | None = None
    jobs_waiting: Annotated[int, Field(ge=0)] | None = None
    jobs_running: Annotated[int, Field(ge=0)] | None = None
    slots_free: Annotated[int, Field(ge=0)] | None = None
    clock_skew_seconds: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    trouble: Annotated[list[Name], Field(max_length=16)] | None = None
