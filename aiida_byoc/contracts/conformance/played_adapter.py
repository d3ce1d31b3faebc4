"""An adapter that a node connects to: it hands out commands, hears verdicts, and acknowledges as a MUST needs it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.conformance.played import Played, Reply, Request
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Event", "PlayedAdapter", "problem"]

Event = dict[str, Any]


def problem(name: str, **headers: str) -> Reply:
    """The answer that is this problem of the catalogue."""
    error = ProblemError(name)
    body = error.problem().model_dump(mode="json", exclude_none=True)
    return Reply(error.kind.status, body, headers, "application/problem+json")


class PlayedAdapter:
    """Listens until `stop`.

    Attributes:
        requests: all that was asked, the oldest first.
        verdicts: by `command_id`.
        batches: the events of each delivery, in the order of arrival.
        verdict_answers: met by the next verdicts, one each; by default 204.
        rules: by `job_id`, what decides on a batch that holds an event of it; `None` lets the others decide.
    """

    def __init__(self, listen: tuple[str, int]) -> None:
        self.requests: list[Request] = []
        self.verdicts: dict[str, Any] = {}
        self.batches: list[list[Event]] = []
        self.verdict_answers: deque[Reply] = deque()
        self.rules: dict[str, Callable[[list[Event]], Reply | None]] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._played = Played(listen, self._answer)
        self.url, self.stop = self._played.url, self._played.stop

    def hand_out(self, command: dict[str, Any]) -> None:
        """Let the next poll have a command."""
        with self._changed:
            self._waiting.append(command)
            self._changed.notify_all()

    def told_of(self, job_id: str) -> list[list[Event]]:
        """Of each delivery, what it told of a job; without those that told nothing."""
        told = [
            [event for event in batch if event["subject"] == job_id] for batch in list(self.batches)
        ]
        return [events for events in told if events]

    def asked(self, end: str) -> list[Request]:
        """The requests whose path ends so."""
        return [each for each in list(self.requests) if each.path.endswith(end)]

    def _answer(self, request: Request) -> Reply:
        self.requests.append(request)
        last = request.path.rpartition("/")[2]
        match last:
            case "poll":
                return Reply(200, {"commands": self._poll(request.json if request.content else {})})
            case "verdict":
                return self._verdict(request.path.split("/")[-2], request.json)
            case "events":
                return self._events(request.json)
            case _:
                return _always(last)

    def _poll(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting, min(float(asked.get("wait_seconds", 30)), 30.0)
            )
            return [
                self._waiting.popleft()
                for _ in range(min(len(self._waiting), asked.get("max_commands", 20)))
            ]

    def _verdict(self, command_id: str, verdict: Any) -> Reply:
        self.verdicts[command_id] = verdict
        return self.verdict_answers.popleft() if self.verdict_answers else Reply(204)

    def _events(self, batch: list[Event]) -> Reply:
        self.batches.append(batch)
        for job_id in dict.fromkeys(event["subject"] for event in batch):
            rule = self.rules.get(job_id)
            reply = rule(batch) if rule else None
            if reply is not None:
                return reply
        return self.acknowledge(batch)

    @staticmethod
    def acknowledge(batch: list[Event], **changes: Any) -> Reply:
        """The answer of a product that has all of it; keywords change the body."""
        wanted = {event["data"]["submission_id"]: event["data"]["seq"] + 1 for event in batch}
        return Reply(200, {"next_seq": wanted, "quarantined": [], **changes})


def _always(last: str) -> Reply:
    """What is answered whatever the MUST is; a node may look whether its adapter lives before it joins."""
    bodies: dict[str, dict[str, Any]] = {
        "heartbeat": {"received_at": utc_now_text(datetime.now(UTC))},
        "livez": {"status": "ok"},
        "token": {"access_token": uuid4().hex, "token_type": "Bearer", "expires_in": 600},
    }
    return Reply(200, bodies[last]) if last in bodies else problem("not-found")
