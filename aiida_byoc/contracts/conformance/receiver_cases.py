"""What any product answers to a node's updates: orders, repetitions, gaps, ends and epochs.

A case is a list of steps: an epoch that an operator accepts, or updates of one job with the expected outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiida_byoc.contracts.conformance.musts import hold

__all__ = ["CASES", "Accept", "Told", "play"]

ONE, TWO, THREE = "aaaaaaaaaaaaaaaa", "5555555555555555", "cccccccccccccccc"
MISMATCH = "epoch_mismatch"


@dataclass(frozen=True)
class Accept:
    """An operator's decision."""

    epoch: str
    before: str | None = None


@dataclass(frozen=True)
class Told:
    """Updates of one call, and what becomes of each: outcome or code, and `?<seq>` where something is missing."""

    expected: str
    updates: tuple[dict[str, Any], ...]


def told(expected: str, *updates: dict[str, Any]) -> Told:
    return Told(expected, updates)


def up(seq: int, state: str = "running", **fields: Any) -> dict[str, Any]:
    """An update, as far as a case looks at it."""
    shown = {"state": state, "execution_state": state}
    return {"seq": seq, **shown, "message": f"{state} {seq}", **fields}


CASES: dict[str, list[Accept | Told]] = {
    "in order": [
        told("applied applied", up(1), up(2)),
        told("applied", up(3, "succeeded")),
    ],
    "repeated": [
        told("applied", up(1)),
        told("duplicate applied", up(1), up(2)),
        told("duplicate duplicate", up(2), up(1)),
    ],
    "late": [
        told("applied?1", up(3)),
        told("superseded?1", up(2)),
        told("superseded", up(1)),
    ],
    "a gap": [
        told("applied applied?2 applied?2", up(1), up(4), up(5)),
        told("superseded?3 superseded", up(2), up(3)),
        told("applied?6", up(9)),
        told("superseded?6", up(8)),
    ],
    "other content": [
        told("applied", up(1)),
        told("seq_conflict applied", up(1, message="other"), up(2)),
        told("duplicate", up(1)),
    ],
    "two gaps": [
        told("applied?1 applied?1", up(2), up(5)),
        told("superseded?1 superseded?3 superseded", up(4), up(1), up(3)),
    ],
    "a seq that no number can hold": [
        told("applied", up(1)),
        told("invalid applied", up(10**30), up(2)),
        told("applied?3", up(2**53 - 1)),
    ],
    "an end": [
        told("applied", up(1, "failed")),
        told("terminal", up(2)),
        told("applied", up(2, "failed")),
        told("terminal", up(3, "succeeded")),
    ],
    "another submission": [
        told("applied", up(1)),
        told("inconsistent", up(2, submission="00000000-0000-4000-8000-ffffffffffff")),
    ],
    "the first epoch": [
        told("applied applied", up(1, epoch=ONE), up(2, epoch=ONE)),
        told("duplicate", up(1, epoch=ONE)),
    ],
    "an unknown epoch": [
        told("applied", up(1, epoch=ONE)),
        told(MISMATCH, up(2, epoch=ONE), up(3, epoch=TWO)),
        told("applied", up(2, epoch=ONE)),
    ],
    "an accepted epoch": [
        told("applied applied applied", up(1, epoch=ONE), up(2, epoch=ONE), up(3, "failed", epoch=ONE)),
        Accept(TWO),
        told("applied?1", up(2, epoch=TWO)),
        told("superseded?1 duplicate", up(4, "failed", epoch=ONE), up(1, epoch=ONE)),
        told("applied terminal", up(3, "succeeded", epoch=TWO), up(4, "failed", epoch=TWO)),
    ],
    "no epoch is the oldest": [
        told("applied?1", up(2)),
        told("applied?1", up(3, epoch=ONE)),
        told("superseded?1 duplicate?1 superseded", up(4), up(2), up(1)),
        told("applied?4", up(6, epoch=ONE)),
    ],
    "a former epoch": [
        told("applied?1", up(3, epoch=THREE)),
        told(MISMATCH, up(1, epoch=ONE)),
        Accept(ONE, before=THREE),
        Accept(TWO, before=THREE),
        told("superseded?2 superseded", up(1, epoch=ONE), up(2, epoch=TWO)),
    ],
    "a decision taken back": [
        told("applied applied", up(1, epoch=ONE), up(2, epoch=ONE)),
        Accept(TWO),
        told("applied?1", up(2, epoch=TWO)),
        Accept(ONE),
        told("applied applied", up(1, epoch=ONE), up(2, epoch=ONE)),
    ],
}  # fmt: skip


def play(
    case: str,
    base: dict[str, Any],
    call: Callable[[list[dict[str, Any]]], dict[str, Any]],
    accept: Callable[[Accept], object],
) -> str:
    """Tell a product a case and hold its answers against it; `Broken` at the first that differs.

    Args:
        base: the fields of an update that say whose it is.
        call: `applyProjections` with these updates; returns the body of the 200.
        accept: carries out an operator's decision.
    """
    seen = []
    for number, step in enumerate(CASES[case], 1):
        if isinstance(step, Accept):
            accept(step)
            continue
        updates = [_whole(base, update) for update in step.updates]
        answered = _read(call(updates), updates)
        hold(answered == step.expected, f"{case}, step {number}: {answered}, not {step.expected}")
        seen.append(answered)
    return "; ".join(seen)


def _whole(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    fields = {**base, **update}
    submission = fields.pop("submission")
    return {**fields, "projection_id": f"{submission}:{fields['seq']}"}


def _read(answer: dict[str, Any], updates: list[dict[str, Any]]) -> str:
    if answer["status"] == "error":
        data = answer.get("errorData", {})
        hold(data.get("message"), "an error has no sentence")
        return str(data["code"])
    outcomes = answer["value"]["outcomes"]
    named = [one["projection_id"] for one in outcomes]
    hold(
        named == [one["projection_id"] for one in updates],
        "the outcomes are not those of the updates, in order",
    )
    words = []
    for one in outcomes:
        word = one["code"] if one["outcome"] == "rejected" else one["outcome"]
        words.append(word + (f"?{one['missing_from']:.0f}" if "missing_from" in one else ""))
    return " ".join(words)
