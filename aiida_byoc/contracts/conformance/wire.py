"""Requests as the kit sends them, and answers as it keeps them: nothing is retried, followed or repaired."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiida_byoc.contracts.conformance.musts import Broken, hold
from aiida_byoc.contracts.problems import CATALOGUE, PROBLEM_BASE

__all__ = ["Answer", "Wire", "expect", "refused"]


@dataclass(frozen=True)
class Answer:
    """What came back, and to what."""

    asked: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body; `Broken` where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Broken(f"{self.told}: the body is no JSON") from error

    @property
    def problem(self) -> str | None:
        """The problem's name in the catalogue's form, if the body is a problem."""
        try:
            name = json.loads(self.body)["type"]
        except (ValueError, KeyError, TypeError):
            return None
        return str(name).removeprefix(PROBLEM_BASE)

    @property
    def told(self) -> str:
        """In short."""
        return f"{self.asked} → {self.status}" + (f" {self.problem}" if self.problem else "")


class Wire:
    """Speaks to one server. Each request has a connection of its own.

    Attributes:
        heard: every answer so far.
    """

    def __init__(self, url: str, seconds: float = 40.0) -> None:
        self._parts = urlsplit(url)
        self._seconds = seconds
        self.heard: list[Answer] = []

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send JSON, or bytes as they are."""
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._seconds)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {} if content is None else {"Content-Type": "application/json"}
        sent |= {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection.request(
                method, self._parts.path.rstrip("/") + path, content, {**sent, **(headers or {})}
            )
            response = connection.getresponse()
            answer = Answer(f"{method} {path}", response.status, response.headers, response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {type(error).__name__}") from error
        finally:
            connection.close()
        self.heard.append(answer)
        return answer


def expect(answer: Answer, status: int) -> Any:
    """The body of an answer that must have this status."""
    hold(answer.status == status, f"{answer.told}, not {status}")
    return answer.json


def refused(answer: Answer, name: str) -> str:
    """Hold that an answer is this problem with its status."""
    status = CATALOGUE[name].status
    hold((answer.status, answer.problem) == (status, name), f"{answer.told}, not {status} {name}")
    return answer.told
