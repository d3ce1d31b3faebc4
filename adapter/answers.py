"""The adapter's own answers; all others are contracts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel
from starlette.responses import Response

from aiida_byoc.contracts.base import Fact, UtcTime

__all__ = ["LOG_HEADERS", "Health", "HeartbeatReceipt", "written"]

LOG_HEADERS = {
    f"Log-{name.title().replace('_', '-')}": name
    for name in ("state", "latest_attempt", "attempt", "offset", "next_offset", "size", "complete")
}
"""Header → field of the LogChunk, for a chunk whose body is the bytes alone."""


class HeartbeatReceipt(Fact):
    """When the adapter, by its clock, received the heartbeat."""

    received_at: UtcTime


class Health(Fact):
    """Whether the process answers (livez) or may get traffic (readyz), and which settings it lacks for that."""

    status: Literal["ok", "not ready"]
    missing: list[str] = []


def written(
    message: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer that says this; fields without a value are left out."""
    body = message.model_dump_json(exclude_none=True)
    return Response(body, status, headers, "application/json")
