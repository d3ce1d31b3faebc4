"""A node reduced to its promises: it polls, decides once per key, and says so, also again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from aiida_byoc.contracts.conformance.musts import Unusable
from aiida_byoc.contracts.conformance.wire import Answer, Wire
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["PlayedNode", "rejection"]

Command = dict[str, Any]
Verdict = dict[str, Any]

_WHEN = "2026-02-15T10:00:00.000Z"


def rejection(name: str) -> Verdict:
    """The verdict that refuses with a problem of the catalogue, in the catalogue's own words."""
    return {
        "outcome": "rejected",
        "problem": ProblemError(name).problem().model_dump(mode="json", exclude_none=True),
    }


class PlayedNode:
    """Polls in a thread from the beginning until `stop`.

    Attributes:
        received: the commands it saw, redeliveries included.
        answers: what the adapter said to each verdict.
        rules: by `job_id`, what decides on its commands instead; `None` means that no verdict is given.
        deciding: cleared, it thinks until it is set again.
    """

    def __init__(self, url: str, node_id: str, token: Callable[[], str]) -> None:
        self.received: list[Command] = []
        self.answers: list[Answer] = []
        self.rules: dict[str, Callable[[Command], Verdict | None]] = {}
        self.deciding = threading.Event()
        self.deciding.set()
        self.jobs: dict[tuple[str, str], tuple[str, Any, dict[str, Any]]] = {}
        self._node_id, self._token = node_id, token
        self._wire = Wire(url)
        self._stopping = threading.Event()
        first = self._poll(0)  # from here on the adapter knows that the node is there
        if first.status != 200:
            raise Unusable(
                f"the adapter does not take the node's polls: {first.told}; correct node_id and node_token"
            )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def heard(self) -> list[Answer]:
        """Every answer that it got."""
        return self._wire.heard

    def got(self, job_id: str) -> list[Command]:
        """The commands about a job so far."""
        return [each for each in self.received if each["job_id"] == job_id]

    def verdict(self, command: Command) -> Verdict:
        """What the contracts make of a command."""
        job = (command["tenant_id"], command["job_id"])
        match command["operation"]:
            case "submit":
                return self._accept(job, command["idempotency_key"], command["body"])
            case "cancel":
                named = {"job_id": job[1], "node_id": self._node_id}
                answer = {**named, "requested_at": _WHEN, "status": "cancelling"}
                return {"outcome": "accepted", "cancellation": answer}
            case "inspect" if job in self.jobs:
                _, body, acceptance = self.jobs[job]
                state = {"seq": 1, "attempt": 1, "state": "accepted", "occurred_at": _WHEN}
                named = {name: body[name] for name in ("tenant_id", "workspace_id", "job_id")}
                ids = {name: acceptance[name] for name in ("submission_id", "trace_id")}
                view = {
                    "node_id": self._node_id,
                    "job": {**named, **ids, **state},
                    "delivered_seq": 0,
                }
                return {"outcome": "answered", "job": view}
            case _:
                return rejection("not-found")

    def _accept(self, job: tuple[str, str], key: str, body: dict[str, Any]) -> Verdict:
        intent = {name: value for name, value in body.items() if name != "traceparent"}
        for (tenant, job_id), (known_key, known, acceptance) in self.jobs.items():
            if (tenant, known_key) == (job[0], key):
                if known != intent:
                    return rejection("idempotency-key-reused")
                return {"outcome": "replayed", "acceptance": acceptance}
            if (tenant, job_id) == job:
                return rejection("job-id-conflict")
        acceptance = {
            "job_id": job[1],
            "submission_id": str(uuid4()),
            "node_id": self._node_id,
            "accepted_at": _WHEN,
            "trace_id": body.get("traceparent", "00-" + uuid4().hex)[3:35],
            "status": "accepted",
        }
        self.jobs[job] = (key, intent, acceptance)
        return {"outcome": "accepted", "acceptance": acceptance}

    def stop(self) -> None:
        """Leave; an open poll ends first."""
        self._stopping.set()
        self.deciding.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):
                self._poll(1)
                continue
            self._stopping.wait(0.02)

    def _poll(self, wait_seconds: int) -> Answer:
        base = f"/v1/nodes/{self._node_id}/commands"
        poll = {"wait_seconds": wait_seconds, "operations": ["logs"]}
        answer = self._wire.ask("POST", f"{base}/poll", poll, token=self._token())
        if answer.status != 200:
            self._stopping.wait(0.2)
            return answer
        for command in answer.json["commands"]:
            self.received.append(command)
            self.deciding.wait(30)
            verdict = self.rules.get(command["job_id"], self.verdict)(command)
            if verdict is not None:
                path = f"{base}/{command['command_id']}/verdict"
                self.answers.append(self._wire.ask("POST", path, verdict, token=self._token()))
        return answer
