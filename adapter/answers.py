"""The adapter's own answers; all others are contracts."""

from __future__ import annotations

from typing import Literal

from aiida_byoc.contracts.base import Fact, UtcTime

__all__ = ["Health", "HeartbeatReceipt"]


class HeartbeatReceipt(Fact):
    """When the adapter, by its clock, received the heartbeat."""

    received_at: UtcTime


class Health(Fact):
    """Whether the process answers (livez) or may get traffic (readyz), and which settings it lacks for that."""

    status: Literal["ok", "not ready"]
    missing: list[str] = []
