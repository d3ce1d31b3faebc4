"""Ten thousand jobs of a tenant of their own, told to the product as an adapter tells them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any

from lab import convex
from lab.credentials import PRODUCT_ISSUER, SERVICE_ISSUER

__all__ = ["MANY", "seed_jobs"]

MANY = 10_000
BATCH = 100
NODE = "warehouse"
TENANT = "many"
STATES = ("succeeded", "succeeded", "succeeded", "failed", "running", "queued", "cancelled")


def seed_jobs(lab: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """Make the tenant, with the user in it, and its jobs; return its name."""
    where = lab["convex"]
    product = convex.Convex(
        url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"]
    )
    member = {
        "tenant_id": TENANT,
        "token_identifier": f"{PRODUCT_ISSUER}|{user['user_id']}",
        "role": "member",
    }
    declared = {
        "tenants": [{"tenant_id": TENANT}],
        "memberships": [member],
        "nodes": [{"node_id": NODE, "tenant_ids": [TENANT]}],
    }
    convex.call(product, "mutation", "tenancy:seed", declared)
    adapter = {
        "issuer": SERVICE_ISSUER,
        "subject": "adapter",
        "tokenIdentifier": f"{SERVICE_ISSUER}|adapter",
        "scope": "projections:write",
        "node_id": NODE,
    }
    acting = base64.b64encode(json.dumps(adapter).encode()).decode()
    for first in range(0, MANY, BATCH):
        updates = [_update(number) for number in range(first, min(first + BATCH, MANY))]
        convex.call(
            product,
            "mutation",
            "projections:applyProjections",
            {"updates": updates},
            authorization=f"Convex {where['admin_key']}:{acting}",
        )
    return TENANT


def _update(number: int) -> dict[str, Any]:
    state = STATES[number % len(STATES)]
    failed = {"code": "oom", "message": "The job ran out of memory.", "retryable": True}
    return {
        "schema_version": "1",
        "projection_id": f"{uuid.uuid4()}:1",
        "tenant_id": TENANT,
        "workspace_id": f"series-{number % 7}",
        "job_id": f"seeded-{number:05}",
        "node_id": NODE,
        "seq": 1,
        "state": state,
        "execution_state": state,
        "attempt": 1,
        **({"error": failed} if state == "failed" else {}),
        **({"result": {"exit_code": 0, "outputs": []}} if state == "succeeded" else {}),
        "occurred_at": "2026-03-01T12:00:00.000Z",
        "trace_id": uuid.uuid4().hex,
    }
