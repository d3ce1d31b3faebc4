"""What `applyProjections` promises, in memory: the contract's rules on order, repetition, ends and epochs."""

from __future__ import annotations

from itertools import count
from typing import Any

TERMINAL = {"succeeded", "failed", "cancelled"}

Update = dict[str, Any]


class EpochMismatchError(Exception):
    """An update is of an epoch that nobody accepted; nothing was applied."""


class Projections:
    """Jobs, timeline and epochs.

    Attributes:
        epochs: by node the accepted ones, the oldest first.
        timeline: every update that was taken, by its key, in the order of arrival.
        rejected: by `projection_id` a code to refuse it with.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, list[str]] = {}
        self.timeline: dict[tuple[str, str, str | None, int], Update] = {}
        self.rejected: dict[str, str] = {}
        self._jobs: dict[tuple[str, str], Update] = {}
        self._heard: dict[tuple[str, str], set[int]] = {}

    def apply(self, node_id: str, updates: list[Update]) -> list[dict[str, Any]]:
        """One outcome per update, in their order; raises `EpochMismatchError` before anything is applied."""
        accepted = self.epochs.setdefault(node_id, [])
        told = [update["epoch"] for update in updates if "epoch" in update]
        if told and not accepted:
            accepted.append(told[0])
        if not set(told) <= set(accepted):
            raise EpochMismatchError
        return [
            {"projection_id": update["projection_id"], **self._one(accepted, update)}
            for update in updates
        ]

    def accept(self, node_id: str, epoch: str, before: str | None = None) -> None:
        """Put an epoch before another, or last."""
        order = [one for one in self.epochs.get(node_id, []) if one != epoch]
        order.insert(len(order) if before is None else order.index(before), epoch)
        self.epochs[node_id] = order

    def _one(self, accepted: list[str], update: Update) -> dict[str, Any]:
        def place(one: Update) -> tuple[int, int]:
            return (accepted.index(one["epoch"]) if "epoch" in one else -1, one["seq"])

        job = (update["tenant_id"], update["job_id"])
        key = (*job, update.get("epoch"), update["seq"])
        stored, seen = self._jobs.get(job), self.timeline.get(key)
        if code := self._refusal(update, stored, seen):
            return {"outcome": "rejected", "code": code}
        heard = self._heard.setdefault(job, set())
        if stored is None or place(update) > place(stored):
            if stored is None or stored.get("epoch") != update.get("epoch"):
                heard.clear()  # where two histories part only the node knows
            elif stored["state"] in TERMINAL - {update["state"]}:
                return {"outcome": "rejected", "code": "terminal"}
            self._jobs[job], outcome = update, "applied"
            heard.add(update["seq"])
        else:
            outcome = "duplicate" if seen else "superseded"
            heard |= {update["seq"]} if update["seq"] < stored["seq"] else set()
        self.timeline.setdefault(key, update)
        lacks = next(seq for seq in count(1) if seq not in heard)
        asks = {"missing_from": lacks} if lacks < self._jobs[job]["seq"] else {}
        return {"outcome": outcome, **asks}

    def _refusal(self, update: Update, stored: Update | None, seen: Update | None) -> str | None:
        if update["projection_id"] in self.rejected:
            return self.rejected[update["projection_id"]]
        if update["seq"] >= 2**53:
            return "invalid"
        if stored is not None and stored["node_id"] != update["node_id"]:
            return "forbidden"
        if seen is not None and seen != update:
            return "seq_conflict"
        submission = update["projection_id"].partition(":")[0]
        if stored is not None and not stored["projection_id"].startswith(submission):
            return "inconsistent"
        return None
