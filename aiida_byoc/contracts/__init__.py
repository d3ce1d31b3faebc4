"""The shared language of product, adapter and node: pure Pydantic, no AiiDA, no SQL, no HTTP.

Read in this order: `base`, `identity`, `lifecycle`, `commands`, `progress`, `events`, `projection`, `logs`, `delivery`,
`catalogue`, `problems`, `canonical`. `schemas`, `typescript` and `asyncapi` write what is generated from them, `lock`
holds a version to what it promised. Beside them `conformance` tries an implementation over HTTP; nothing imports it.
"""

from __future__ import annotations

from aiida_byoc.contracts.canonical import canonical_json, fingerprint
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.delivery import (
    Acknowledgement,
    Command,
    CommandBatch,
    Heartbeat,
    JobAcceptance,
    JobCancellation,
    JobView,
    PollRequest,
    Verdict,
)
from aiida_byoc.contracts.events import ExecutionEvent, JobState
from aiida_byoc.contracts.lifecycle import ExecutionState, ProductState
from aiida_byoc.contracts.logs import LogChunk, LogRequest
from aiida_byoc.contracts.problems import Problem, ProblemType
from aiida_byoc.contracts.projection import ProjectionOutcome, ProjectionUpdate

__all__ = [
    "Acknowledgement",
    "CancelJobCommand",
    "Command",
    "CommandBatch",
    "ExecutionEvent",
    "ExecutionState",
    "Heartbeat",
    "JobAcceptance",
    "JobCancellation",
    "JobState",
    "JobView",
    "LogChunk",
    "LogRequest",
    "PollRequest",
    "Problem",
    "ProblemType",
    "ProductState",
    "ProjectionOutcome",
    "ProjectionUpdate",
    "SubmitJobCommand",
    "Verdict",
    "canonical_json",
    "fingerprint",
]
