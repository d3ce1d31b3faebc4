"""Generated requests, right and wrong, against a running adapter: it does what its document says (schemathesis)."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NOT_SET

from tests.security.inventory import DOCUMENT, ROUTES

EXAMPLES = 8
CREDENTIALS = {(route.method, route.path): route.credential for route in ROUTES}
LONGEST_POLL = DOCUMENT["components"]["schemas"]["PollRequest"]["properties"]["wait_seconds"][
    "maximum"
]
SET_ASIDE = "deliverEvents"
"""An event that does not fit is quarantined, and the batch answered with 200: docs/contracts/event-delivery.md."""
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            "checks": {
                # A schema is necessary, not sufficient: rules across fields stand in the pages of the contracts.
                "positive_data_acceptance": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": ["4xx"]},
            },
            "operations": [
                {
                    "include-operation-id": SET_ASIDE,
                    "checks": {"negative_data_rejection": {"enabled": False}},
                }
            ],
        }
    ),
)


@pytest.fixture
def tokens(keys, node, adapter) -> dict[str, str]:
    """What opens the routes at node n1, which is there and answers."""
    return {"client": keys.client("acme"), "node": keys.node("n1")}


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_adapter_does_what_its_document_says(
    case: Any, adapter: Any, tokens: dict[str, str]
) -> None:
    """Statuses, media types, headers and bodies as declared, no failure of ours, nothing wrong let through."""
    if "node_id" in case.path_parameters:
        case.path_parameters["node_id"] = "n1"
    if case.operation.path.endswith("/poll"):
        _answer_at_once(case)
    credential = CREDENTIALS[case.operation.method.upper(), case.operation.path]
    headers = {"Authorization": f"Bearer {tokens[credential]}"} if credential else {}
    case.call_and_validate(base_url=adapter.url, headers=headers, timeout=20)


def _answer_at_once(case: Any) -> None:
    """Let no right poll wait, whether it says for how long or leaves it to the default."""
    body = {} if case.body is NOT_SET else case.body
    wait = body.get("wait_seconds", LONGEST_POLL) if isinstance(body, dict) else None
    if type(wait) is int and 0 <= wait <= LONGEST_POLL:
        case.body, case.media_type = {**body, "wait_seconds": 0}, "application/json"
