"""The life of a job, as data. No other module knows which state may follow which.

`docs/contracts/event-execution-lifecycle.md` shows the same table; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "PRODUCT_STATE",
    "SUCCESSORS",
    "TERMINAL",
    "ExecutionState",
    "ProductState",
    "may_follow",
]


class ExecutionState(StrEnum):
    """What the node knows about a job."""

    ACCEPTED = "accepted"
    LAUNCHED = "launched"
    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ProductState(StrEnum):
    """What users see of it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ATTENTION = "attention"


_S = ExecutionState
TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
"""Absorbing: nothing follows them."""

SUCCESSORS: dict[ExecutionState, frozenset[ExecutionState]] = {
    _S.ACCEPTED: frozenset({_S.LAUNCHED, _S.CANCELLED, _S.FAILED}),
    _S.LAUNCHED: frozenset({_S.QUEUED, _S.HELD, _S.CANCELLED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.SUCCEEDED, _S.QUEUED, _S.HELD, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.RUNNING, _S.SUCCEEDED, _S.QUEUED, _S.HELD, _S.CANCELLED, _S.FAILED}),
    _S.HELD: frozenset({_S.LAUNCHED, _S.QUEUED, _S.RUNNING}) | TERMINAL,
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

PRODUCT_STATE: dict[ExecutionState, ProductState] = {
    _S.ACCEPTED: ProductState.QUEUED,
    _S.LAUNCHED: ProductState.QUEUED,
    _S.QUEUED: ProductState.QUEUED,
    _S.RUNNING: ProductState.RUNNING,
    _S.HELD: ProductState.ATTENTION,
    _S.SUCCEEDED: ProductState.SUCCEEDED,
    _S.FAILED: ProductState.FAILED,
    _S.CANCELLED: ProductState.CANCELLED,
}


def may_follow(
    current: ExecutionState,
    following: ExecutionState,
    *,
    held_from: ExecutionState | None = None,
    new_attempt: bool = False,
    new_place: bool = False,
    new_progress: bool = False,
) -> bool:
    """Say whether a job in `current` may be reported in `following`.

    `held_from` is the state in which the job was when it became held: it may return only there or end.
    `queued` after `queued` needs a new attempt or a new place in Slurm (it is there now, or waits for another reason),
    after `running` a new attempt; `running` after `running` needs new progress.
    """
    if following not in SUCCESSORS[current]:
        return False
    if current is _S.HELD and following not in TERMINAL:
        return following is held_from
    if following is _S.QUEUED and current in {_S.QUEUED, _S.RUNNING}:
        return new_attempt or (new_place and current is _S.QUEUED)
    return new_progress or (current, following) != (_S.RUNNING, _S.RUNNING)
