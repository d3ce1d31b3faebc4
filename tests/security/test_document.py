"""Generated requests, right and wrong, against a running adapter: it does what its document says (schemathesis)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NOT_SET

from tests.security.inventory import DOCUMENT, ROUTES
from tests.service.enrolled import NodeKey, access_token

EXAMPLES = 8
CREDENTIALS = {(route.method, route.path): route.credential for route in ROUTES}
LONGEST_POLL = DOCUMENT["components"]["schemas"]["PollRequest"]["properties"]["wait_seconds"][
    "maximum"
]
SET_ASIDE = "deliverEvents"
"""An event that does not fit is quarantined, and the batch answered with 200: docs/contracts/event-delivery.md."""
OPENED_BY_ITS_BODY = ("enrollNode", "issueToken")
"""What they bring is itself a credential; nobody guesses one."""
OF_IDENTITY = ("/keys", "/retire", "/revoke")
"""Routes about who a node is: tried at one that enrolled."""
FITTING = ["2xx", "403", "404", "409", "422", "503"]
"""What may become of a request that fits its schema: done, or refused for whom it is about or by a rule across fields.

Never that it is malformed (400, 413, 415), its credential (401) or its method (405).
"""
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            "checks": {
                "positive_data_acceptance": {"expected-statuses": FITTING},
                "negative_data_rejection": {"expected-statuses": ["4xx"]},
            },
            "operations": [
                {
                    "include-operation-id": SET_ASIDE,
                    "checks": {"negative_data_rejection": {"enabled": False}},
                },
                *(
                    {
                        "include-operation-id": name,
                        "checks": {
                            "positive_data_acceptance": {"expected-statuses": [*FITTING, "401"]}
                        },
                    }
                    for name in OPENED_BY_ITS_BODY
                ),
            ],
        }
    ),
)


@pytest.fixture
def declared(keys, node, adapter) -> dict[str, str]:
    """What opens the routes at node n1, which is there and answers."""
    return {"id": "n1", "client": keys.client("acme"), "node": keys.node("n1")}


@pytest.fixture
def enrolled(http, convex, keys) -> dict[str, str]:
    """What opens them at a node whose keys the product keeps."""
    node_id, key = f"node-{uuid4()}", NodeKey()
    convex.registry.enrol(node_id, key.key_id, key.jwk, "acme")
    token = access_token(http, node_id, key)
    return {"id": node_id, "client": keys.client("acme"), "node": token}


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_adapter_does_what_its_document_says(
    case: Any, adapter: Any, declared: dict[str, str], enrolled: dict[str, str]
) -> None:
    """Statuses, media types, headers and bodies as declared, no failure of ours, nothing wrong let through."""
    node = enrolled if case.operation.path.endswith(OF_IDENTITY) else declared
    if "node_id" in case.path_parameters:
        case.path_parameters["node_id"] = node["id"]
    if case.operation.path.endswith("/poll"):
        _answer_at_once(case)
    credential = CREDENTIALS[case.operation.method.upper(), case.operation.path]
    headers = {"Authorization": f"Bearer {node[credential]}"} if credential else {}
    case.call_and_validate(base_url=adapter.url, headers=headers, timeout=20)


def _answer_at_once(case: Any) -> None:
    """Let no right poll wait, whether it says for how long or leaves it to the default."""
    body = {} if case.body is NOT_SET else case.body
    wait = body.get("wait_seconds", LONGEST_POLL) if isinstance(body, dict) else None
    if type(wait) is int and 0 <= wait <= LONGEST_POLL:
        case.body, case.media_type = {**body, "wait_seconds": 0}, "application/json"
