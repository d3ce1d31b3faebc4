"""A node reduced to its promises: it polls, decides once per key, and says so, also again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx

from tests.service.keys import Keys

PROBLEMS = "https://aiida-byoc.org/problems/"


class ScriptedNode:
    """Polls in a thread. Its ledger outlives every adapter, as a real node's does. It knows logs and receipts.

    Attributes:
        received: the commands it saw, redeliveries included.
        decide: replaces its verdict for the tests that want another one; `None` means no answer.
        operations: what it says it knows.
        deciding: cleared by tests that want it to think until they set it again.
        wait_seconds: how long its polls wait.
        along: whether its verdicts go along with its next poll; such as answer nothing may be put there before.
    """

    def __init__(self, url: str, keys: Keys, node_id: str = "n1") -> None:
        self.received: list[dict[str, Any]] = []
        self.decide: Callable[[dict[str, Any]], dict[str, Any] | None] = self.accept
        self.deciding = threading.Event()
        self.deciding.set()
        self.problems: list[str] = []
        self.operations = ["logs", "receipt"]
        self.along = False
        self.wait_seconds = 1
        self.verdicts: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        self._node_id, self._ledger = node_id, {}
        self._keys = keys
        self._stopping = threading.Event()
        self._base = f"{url}/v1/nodes/{node_id}"
        with self._http() as http:
            self._round(
                http, wait_seconds=0
            )  # from here on the adapter knows that the node is there
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def accept(self, command: dict[str, Any]) -> dict[str, Any]:
        """Accept a submission once per key, a cancel always, and know no job."""
        if command["operation"] in {"inspect", "logs", "receipt"}:
            return self.reject("not-found", 404)
        if command["operation"] == "cancel":
            cancellation = {
                "job_id": command["job_id"],
                "node_id": self._node_id,
                "requested_at": "2026-02-15T10:00:00Z",
                "status": "cancelling",
            }
            return {"outcome": "accepted", "cancellation": cancellation}
        key = (command["tenant_id"], command["idempotency_key"])
        outcome = "replayed" if key in self._ledger else "accepted"
        acceptance = self._ledger.setdefault(
            key,
            {
                "job_id": command["job_id"],
                "submission_id": str(uuid4()),
                "node_id": self._node_id,
                "accepted_at": "2026-02-15T10:00:00.000Z",
                "trace_id": "a" * 32,
                "status": "accepted",
            },
        )
        return {"outcome": outcome, "acceptance": acceptance}

    @staticmethod
    def reject(name: str, status: int) -> dict[str, Any]:
        """The verdict that refuses with a problem of the catalogue."""
        problem = {
            "type": PROBLEMS + name,
            "title": "no",
            "status": status,
            "detail": "the node says no",
            "retry": False,
        }
        return {"outcome": "rejected", "problem": problem}

    def knows(self, *operations: str) -> None:
        """Know these from now on; the adapter has heard of it when this returns."""
        self.operations = list(operations)
        with self._http() as http:
            self._round(http, wait_seconds=0)

    def stop(self) -> None:
        """Leave; an open poll ends with its connection."""
        self._stopping.set()
        self.deciding.set()
        self._thread.join(10)

    def _run(self) -> None:
        with self._http() as http:
            while not self._stopping.is_set():
                try:
                    self._round(http)
                except httpx.TransportError:
                    self._stopping.wait(0.02)  # the adapter is away; so would a node pause

    def _http(self) -> httpx.Client:
        return httpx.Client(timeout=20, trust_env=False)

    def _round(self, http: httpx.Client, wait_seconds: int | None = None) -> None:
        # A token of its own for each round: a session of tests may last longer than one is good.
        http.headers["Authorization"] = f"Bearer {self._keys.node(self._node_id)}"
        wait = self.wait_seconds if wait_seconds is None else wait_seconds
        poll: dict[str, Any] = {"wait_seconds": wait, "operations": self.operations}
        if self.verdicts:
            poll["verdicts"], self.verdicts = self.verdicts, []
        response = http.post(f"{self._base}/commands/poll", json=poll)
        response.raise_for_status()
        self.batches.append(response.json())
        received, problems = self.received, self.problems
        for command in response.json()["commands"]:
            received.append(command)
            verdict = self.decide(command)
            self.deciding.wait(30)
            if verdict is not None and self.along:
                self.verdicts.append({"command_id": command["command_id"], "verdict": verdict})
            elif verdict is not None:
                answer = http.post(
                    f"{self._base}/commands/{command['command_id']}/verdict", json=verdict
                )
                if answer.status_code != 204:
                    problems.append(answer.json()["type"].removeprefix(PROBLEMS))
