"""Write the JSON Schema (2020-12) of every surface: `python -m aiida_byoc.contracts.schemas DIRECTORY`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

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
    SigningKeys,
    TokenRequest,
)
from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.logs import LogChunk, LogRequest
from aiida_byoc.contracts.problems import Problem
from aiida_byoc.contracts.projection import ProjectionOutcome, ProjectionUpdate
from aiida_byoc.contracts.receipt import Envelope, Statement

__all__ = ["SURFACES", "schema_text"]

SURFACES: dict[str, type[BaseModel]] = {
    "submit-job-command.v1": SubmitJobCommand,
    "cancel-job-command.v1": CancelJobCommand,
    "job-acceptance.v1": JobAcceptance,
    "job-cancellation.v1": JobCancellation,
    "job-view.v1": JobView,
    "execution-event.v1": ExecutionEvent,
    "projection-update.v1": ProjectionUpdate,
    "projection-outcome.v1": ProjectionOutcome,
    "poll-request.v1": PollRequest,
    "command-batch.v1": CommandBatch,
    "verdict.v1": Verdict,
    "acknowledgement.v1": Acknowledgement,
    "heartbeat.v1": Heartbeat,
    "log-request.v1": LogRequest,
    "log-chunk.v1": LogChunk,
    "enrolment-request.v1": EnrolmentRequest,
    "enrolment.v1": Enrolment,
    "token-request.v1": TokenRequest,
    "access-token.v1": AccessToken,
    "key-addition.v1": KeyAddition,
    "node-keys.v1": NodeKeys,
    "signing-keys.v1": SigningKeys,
    "receipt-envelope.v1": Envelope,
    "receipt-statement.v1": Statement,
    "problem.v1": Problem,
}
"""File name (without `.json`) to model; the version is the contract's."""


def schema_text(model: type[BaseModel]) -> str:
    """The schema of what is sent, as a file holds it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main(directory: Path) -> None:
    """Write one file per surface."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in SURFACES.items():
        (directory / f"{name}.json").write_text(schema_text(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
