"""Events as a node sends them."""

from __future__ import annotations

from typing import Any

from aiida_byoc.contracts.conformance import adapter_scene
from aiida_byoc.contracts.conformance.adapter_scene import BATCH

__all__ = ["BATCH", "event"]


def event(submission: str, seq: int, **changes: Any) -> dict[str, Any]:
    """An event of node n1 and tenant acme; keywords change `data`."""
    own = {"workspace_id": "lab", "job_id": f"job-{submission[:8]}"}
    return adapter_scene.event("n1", "acme", submission, seq, **{**own, **changes})
