"""The golden messages: one valid message per surface and state, and which model reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.delivery import (
    Acknowledgement,
    CommandBatch,
    Heartbeat,
    JobAcceptance,
    JobCancellation,
    JobView,
    PollRequest,
    Verdict,
)
from aiida_byoc.contracts.enrolment import (
    AccessToken,
    Enrolment,
    EnrolmentRequest,
    KeyAddition,
    NodeKeys,
    TokenRequest,
)
from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.logs import LogChunk, LogRequest
from aiida_byoc.contracts.problems import Problem, ProblemError
from aiida_byoc.contracts.projection import ProjectionOutcome, ProjectionUpdate
from aiida_byoc.contracts.receipt import Envelope, Statement
from aiida_byoc.contracts.validation import validated

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "docs" / "contracts"
EXAMPLES = DOCUMENTS / "examples"

MODELS: dict[str, type[BaseModel]] = {
    "access-token": AccessToken,
    "acknowledgement": Acknowledgement,
    "cancel-job-command": CancelJobCommand,
    "command-batch": CommandBatch,
    "enrolment": Enrolment,
    "enrolment-request": EnrolmentRequest,
    "execution-event": ExecutionEvent,
    "heartbeat": Heartbeat,
    "job-acceptance": JobAcceptance,
    "job-cancellation": JobCancellation,
    "job-view": JobView,
    "key-addition": KeyAddition,
    "log-chunk": LogChunk,
    "log-request": LogRequest,
    "node-keys": NodeKeys,
    "poll-request": PollRequest,
    "problem": Problem,
    "projection-outcome": ProjectionOutcome,
    "projection-update": ProjectionUpdate,
    "receipt-envelope": Envelope,
    "receipt-statement": Statement,
    "submit-job-command": SubmitJobCommand,
    "token-request": TokenRequest,
    "verdict": Verdict,
}
"""First word of a golden file's name (before the first dot) → the model that must read it for ever."""


def golden(name: str) -> Any:
    """A fresh copy of the golden message `docs/contracts/examples/<name>.v1.json`."""
    return json.loads((EXAMPLES / f"{name}.v1.json").read_text())


def golden_names() -> list[str]:
    """Every golden message, without `.v1.json`."""
    return sorted(path.name.removesuffix(".v1.json") for path in EXAMPLES.iterdir())


def changed(message: Any, path: str, value: Any) -> Any:
    """`message` with the field at the dotted `path` set, or removed when `value` is `...`."""
    *parents, last = path.split(".")
    place = message
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return message


def refused(model: type[BaseModel], message: Any) -> ProblemError:
    """Validate `message` and return the `validation-failed` that it must end in."""
    with pytest.raises(ProblemError) as caught:
        validated(model, message)
    assert caught.value.kind.name == "validation-failed"
    return caught.value
