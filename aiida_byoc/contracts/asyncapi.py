"""Write the AsyncAPI 3.0 document of the events: `python -m aiida_byoc.contracts.asyncapi > docs/asyncapi.json`.

It describes the node, which sends: a batch of CloudEvents per POST, and an acknowledgement in reply.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import models_json_schema

from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, Acknowledgement
from aiida_byoc.contracts.events import ExecutionEvent, event_type
from aiida_byoc.contracts.lifecycle import PRODUCT_STATE, SUCCESSORS, TERMINAL, ExecutionState
from aiida_byoc.contracts.problems import Problem

__all__ = ["asyncapi_text"]

_BATCH = "application/cloudevents-batch+json"
_BINDING = {"bindingVersion": "0.3.0"}


def asyncapi_text() -> str:
    """The document of this version, the same on every machine."""
    return json.dumps(_document(), indent=2, sort_keys=True) + "\n"


def _document() -> dict[str, Any]:
    _, shared = models_json_schema(
        [(model, "validation") for model in (ExecutionEvent, Acknowledgement, Problem)],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "aiida-byoc: events of a management node",
            "version": "1",
            "description": "What happened to jobs, in order per job, until the product has it. The law: "
            "docs/contracts/event-execution-lifecycle.md and event-delivery.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": _BATCH,
        "channels": {
            "events": {
                "address": "/v1/nodes/{node_id}/events",
                "description": "One POST per batch. A batch may be sent again at any time.",
                "parameters": {"node_id": {"description": "the node; also the events' source"}},
                "messages": {
                    "batch": {"$ref": "#/components/messages/batch"},
                    "acknowledgement": {"$ref": "#/components/messages/acknowledgement"},
                    "problem": {"$ref": "#/components/messages/problem"},
                },
            },
        },
        "operations": {
            "deliverEvents": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "messages": [{"$ref": "#/channels/events/messages/batch"}],
                "security": [{"$ref": "#/components/securitySchemes/node"}],
                "bindings": {"http": {"method": "POST", **_BINDING}},
                "reply": {
                    "channel": {"$ref": "#/channels/events"},
                    "messages": [
                        {"$ref": "#/channels/events/messages/acknowledgement"},
                        {"$ref": "#/channels/events/messages/problem"},
                    ],
                },
            },
        },
        "components": {
            "messages": {
                "batch": {
                    "summary": "ExecutionEvents of one node; those of a job in the order of their seq",
                    "contentType": _BATCH,
                    "payload": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_EVENT_BATCH,
                        "items": {"oneOf": [_reference(_name(state)) for state in ExecutionState]},
                    },
                },
                "acknowledgement": {
                    "summary": "How far the product is, per job",
                    "contentType": "application/json",
                    "payload": _reference("Acknowledgement"),
                    "bindings": {"http": {"statusCode": 200, **_BINDING}},
                },
                "problem": {
                    "summary": "Why nothing of the batch counts as delivered (RFC 9457)",
                    "contentType": "application/problem+json",
                    "payload": _reference("Problem"),
                },
            },
            "schemas": {
                **shared["$defs"],
                **{_name(state): _told(state) for state in ExecutionState},
            },
            "securitySchemes": {
                "node": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "the node's access token, docs/contracts/node-enrolment.md",
                }
            },
        },
    }


def _told(state: ExecutionState) -> dict[str, Any]:
    """The event of one state, told apart by its `type`."""
    after = (
        "nothing follows"
        if state in TERMINAL
        else "then " + ", ".join(each for each in ExecutionState if each in SUCCESSORS[state])
    )
    return {
        "title": event_type(state),
        "description": f"users see {PRODUCT_STATE[state]}; {after}",
        "allOf": [
            _reference("ExecutionEvent"),
            {"type": "object", "properties": {"type": {"const": event_type(state)}}},
        ],
    }


def _name(state: ExecutionState) -> str:
    return f"{state.title()}Event"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


if __name__ == "__main__":
    sys.stdout.write(asyncapi_text())
