"""A product that takes projections as Convex does on the wire (`POST /api/mutation`), and fails as a MUST needs it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from aiida_byoc.contracts.conformance.played import Reply, Request
from aiida_byoc.contracts.conformance.projections import EpochMismatchError, Projections

__all__ = ["PlayedProduct"]


class PlayedProduct:
    """What answers for the product; a `Played` listens for it.

    Attributes:
        projections: what it stored.
        calls: the updates of each call of applyProjections, in the order of arrival.
        heartbeats: the reports of nodes.
        faults: met by the next calls of applyProjections, one each: `503`, or `lost-reply` (carried out, then a reset);
            `any 503` is met by any call.
        poison: updates for which a call is refused whole, without a reason.
        go_on: cleared, a call that was carried out is answered only once it is set again.
    """

    def __init__(self) -> None:
        self.projections = Projections()
        self.calls: list[list[dict[str, Any]]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.faults: deque[str] = deque()
        self.poison: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self._guard = threading.Lock()

    def stored(self, job: str) -> list[int]:
        """The `seq` that it has of a submission, as they came."""
        kept = [each["projection_id"].partition(":") for each in self.projections.timeline.values()]
        return [int(seq) for submission, _, seq in kept if submission == job]

    def answer(self, request: Request) -> Reply | None:
        """Answer one call, as Convex does."""
        call = request.json
        applies = call["path"] == "projections:applyProjections"
        fault = (
            self.faults.popleft()
            if self.faults and (applies or self.faults[0] == "any 503")
            else ""
        )
        if fault.endswith("503"):
            return Reply(503, {"code": "Overloaded", "message": "for the while of a test"})
        with self._guard:
            answer = self._called(call["path"], call["args"])
        if applies and call["args"]["updates"]:
            self.go_on.wait(60)
        return None if fault == "lost-reply" else Reply(200, answer)

    def _called(self, path: str, args: dict[str, Any]) -> dict[str, Any]:
        if path == "nodes:recordHeartbeat":
            self.heartbeats.append(args)
            return {"status": "success", "value": {"outcome": "applied"}}
        if path != "projections:applyProjections":
            return {"status": "success", "value": None}  # the registry knows nobody
        updates = args["updates"]
        if not updates:
            return _refusal("invalid")
        self.calls.append(updates)
        if self.poison & {update["projection_id"] for update in updates}:
            return {"status": "error", "errorMessage": "Server Error"}
        try:
            outcomes = self.projections.apply(updates[0]["node_id"], updates)
        except EpochMismatchError:
            return _refusal("epoch_mismatch")
        return {"status": "success", "value": {"outcomes": outcomes}}


def _refusal(code: str) -> dict[str, Any]:
    data = {"code": code, "message": "A sentence on why"}
    return {"status": "error", "errorMessage": "Server Error", "errorData": data}
