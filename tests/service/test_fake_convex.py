"""The fake product is held to the cases of the real functions (tests/convex/test_product.py, test_identity.py)."""

from __future__ import annotations

import time
from uuid import uuid4

import httpx
import jwt
import pytest

from aiida_byoc.contracts.conformance.receiver_cases import CASES, play
from tests.service import registry_cases


@pytest.mark.parametrize("case", CASES)
def test_the_fake_answers_as_the_real_functions_do(case, convex, keys):
    node_id = f"node-{uuid4()}"
    claims = {"aud": "convex", "exp": int(time.time()) + 300, "node_id": node_id}
    token = jwt.encode(claims, keys.private["service"], "ES256")
    base = {
        "tenant_id": "acme",
        "job_id": f"job-{uuid4()}",
        "node_id": node_id,
        "submission": str(uuid4()),
    }

    def call(updates):
        body = {"path": "projections:applyProjections", "args": {"updates": updates}}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{convex.url}/api/mutation"
        return httpx.post(url, json=body, headers=headers, trust_env=False).json()

    def accept(step):
        convex.projections.accept(node_id, step.epoch, step.before)

    play(case, base, call, accept)


def test_the_fake_registry_keeps_the_promises_of_the_real_one(convex):
    node_id, registry = f"node-{uuid4()}", convex.registry
    scopes = ["registry:read", "registry:write"]

    def call(name, **args):
        is_query = name in {"node", "serviceToken"}
        return registry.call("query" if is_query else "mutation", f"registry:{name}", args, scopes)

    registry_cases.play(node_id, "acme", call, lambda: registry.create(node_id, "acme"))
