"""Where requests for logs wait: apart from all other commands, which no log may hold up, and never for long."""

from __future__ import annotations

import base64
import logging
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from aiida_byoc.agent.channel import check_signature, judged, policy_of
from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.agent.reader import Reader, ReaderUnavailable
from aiida_byoc.arrays.cancelled import check_task
from aiida_byoc.contracts.delivery import Command, Verdict
from aiida_byoc.contracts.lifecycle import TERMINAL, ExecutionState
from aiida_byoc.contracts.logs import LogChunk, LogRequest, written
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated
from aiida_byoc.node import NodeSettings

__all__ = ["LogDesk"]

_LOGGER = logging.getLogger(__name__)
_MOST_WAITING = 100
_ANSWER_SECONDS = 10.0
"""From the arrival of a request; the client hears something before its own patience ends (15 s by default)."""
_IDLE_SECONDS = 1.0
_AGAIN_SECONDS = 5

_PLACE = """
WITH attempt AS (
    SELECT job.submission_id, output_id AS pk, substring(label FROM '^iteration_([0-9]+)$')::integer AS number
    FROM byoc.job JOIN db_dblink ON input_id = job.process_pk AND type = 'call_calc'
    WHERE tenant_id = %(tenant_id)s AND job_id = %(job_id)s
)
SELECT node.node_id, job.state::text, latest.attempt AS latest_attempt,
       (SELECT pk FROM attempt WHERE number = coalesce(%(attempt)s, latest.attempt)) AS attempt_pk,
       CASE WHEN %(task)s::integer IS NOT NULL THEN job.command END AS command
FROM byoc.node, byoc.job, LATERAL (
    SELECT greatest(job.attempt, (SELECT max(number) FROM attempt)) AS attempt
) AS latest
WHERE tenant_id = %(tenant_id)s AND job_id = %(job_id)s AND state IS NOT NULL
"""


@dataclass(frozen=True)
class _Place:
    """Where a log is: the attempt's node, `None` while there is none; the command, where a task's log is wanted."""

    node_id: str
    state: str
    latest_attempt: int
    attempt_pk: int | None
    command: dict[str, Any] | None


class LogDesk:
    """Takes requests for logs at once, and answers one after the other.

    Args:
        settings: the node's.
        reader: reads what an attempt has written.
    """

    def __init__(self, settings: NodeSettings, reader: Reader) -> None:
        self._settings = settings
        self._reader = reader
        self._orders: queue.Queue[tuple[Command, float]] = queue.Queue(_MOST_WAITING)
        self._waiting: set[str] = set()

    def take(self, command: Command) -> Verdict | None:
        """Let the request wait; the verdict says that there is no room. One that waits already was handed out again."""
        if command.command_id in self._waiting:
            return None
        try:
            self._orders.put_nowait((command, time.monotonic()))
        except queue.Full:
            problem = _busy("Too many requests for logs wait").problem()
            return Verdict(outcome="rejected", problem=problem)
        self._waiting.add(command.command_id)
        return None

    def step(self, connection: psycopg.Connection, client: AdapterClient) -> float:
        """Answer the request that came first, if any comes; a round of the agent's loop."""
        self._reader.keep()
        try:
            command, came_at = self._orders.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            return 0
        try:
            until = came_at + _ANSWER_SECONDS
            verdict = judged(
                command, lambda: self._answer(connection, command, until), level=logging.DEBUG
            )
            client.verdict(command.command_id, verdict)
        finally:
            self._waiting.discard(command.command_id)
        return 0

    def close(self) -> None:
        """End the reader."""
        self._reader.kill()

    def _answer(self, connection: psycopg.Connection, command: Command, until: float) -> Verdict:
        check_signature(self._settings, command)
        wanted = validated(LogRequest, command.body or {}, what="command")
        policy_of(self._settings).serve(command.tenant_id)
        place = _place(connection, command, wanted)
        part = self._part(place, wanted, until)
        content = base64.b64decode(part["content"])
        is_closed = part["is_closed"] or place.state in TERMINAL
        is_last = is_closed and part["offset"] + len(content) >= part["size"]
        encoding, data, length = written(content, more=not is_last, limit=wanted.limit)
        next_offset = part["offset"] + length
        chunk = LogChunk(
            node_id=place.node_id,
            tenant_id=command.tenant_id,
            job_id=command.job_id,
            state=ExecutionState(place.state),
            latest_attempt=place.latest_attempt,
            attempt=wanted.attempt or place.latest_attempt,
            stream=wanted.stream,
            task=wanted.task,
            offset=part["offset"],
            next_offset=next_offset,
            size=max(part["size"], next_offset if length else 0),
            encoding=encoding,
            data=data,
            complete=is_closed and next_offset >= part["size"],
        )
        return Verdict(outcome="answered", log=chunk)

    def _part(self, place: _Place, wanted: LogRequest, until: float) -> Mapping[str, Any]:
        if place.attempt_pk is None:
            nothing = {"content": "", "offset": max(wanted.offset, 0), "size": 0}
            return {**nothing, "is_closed": False}
        question = {"attempt": place.attempt_pk, **wanted.model_dump(exclude={"attempt"})}
        if time.monotonic() >= until:
            raise _busy("Too many requests for logs wait")
        try:
            answer = self._reader.ask(question, until=until)
        except ReaderUnavailable as error:
            _LOGGER.warning("Log not read event=reader_unavailable: %s", error)
            raise _busy("The node cannot read logs now") from error
        if "error" in answer:
            raise _busy("The job's cluster cannot be asked now")
        return answer


def _place(connection: psycopg.Connection, command: Command, wanted: LogRequest) -> _Place:
    cursor = connection.cursor(row_factory=class_row(_Place))
    sought = {
        "tenant_id": command.tenant_id,
        "job_id": command.job_id,
        "attempt": wanted.attempt,
        "task": wanted.task,
    }
    place = cursor.execute(_PLACE, sought).fetchone()
    if place is None:
        raise ProblemError("not-found")
    if wanted.task is not None and place.command is not None:
        check_task(place.command, wanted.task)
    return place


def _busy(what: str) -> ProblemError:
    return ProblemError("node-failed", f"{what}; retry.", retry_after=_AGAIN_SECONDS)
