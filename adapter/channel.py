"""The way to a node that opens no port: commands wait here for its poll, callers wait for its verdict.

In memory only. A command lost with the process was not answered, so its sender retries with the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiida_byoc.contracts import Command, Verdict
from aiida_byoc.contracts.problems import FieldError, ProblemError

__all__ = ["MAX_WAITING", "SIGNATURES", "Channel"]

MAX_WAITING = 1000
"""Commands that may wait for one node at a time."""

SIGNATURES = "signatures"
"""What a node says it knows when its commands may carry the product's signature."""

_ALWAYS_KNOWN = frozenset({"submit", "cancel", "inspect"})
_NO_ANSWER = "The node did not answer in time; retry with the same key only."


@dataclass(slots=True, eq=False)
class _Waiting:
    command: Command
    verdict: asyncio.Future[Verdict]
    delivered_at: float | None = None


@dataclass(slots=True)
class _Node:
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    open_polls: int = 0
    seen_at: float | None = None
    operations: frozenset[str] = frozenset()

    def wake(self) -> None:
        """Let every open poll look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class Channel:
    """Commands to nodes and their verdicts back.

    A node is known here from its first sign of life until it has been silent for long: names that only callers use
    leave nothing behind.

    Args:
        verdict_timeout: how long a caller waits for the verdict, seconds.
        redelivery: after how many seconds an unanswered command is handed out again; nodes are idempotent.
        presence: for how many seconds after its last sign of life a node counts as connected.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        verdict_timeout: float,
        redelivery: float,
        presence: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes: dict[str, _Node] = {}
        self._verdict_timeout = verdict_timeout
        self._redelivery = redelivery
        self._presence = presence
        self._clock = clock
        self._closing = asyncio.Event()

    def touch(self, node_id: str) -> None:
        """Note a sign of life."""
        self._node(node_id).seen_at = self._clock()

    async def submit(self, node_id: str, command: Command) -> Verdict:
        """Hand `command` to the node and return its verdict.

        Raises:
            ProblemError: `node-unreachable` when the node surely has not seen the command,
                `outcome-unknown` when it may have, `operation-unsupported` when it would not understand it.
        """
        node = self._nodes.get(node_id)
        if node is None or self.is_closing or not self._is_present(node):
            raise ProblemError("node-unreachable")
        if command.operation not in _ALWAYS_KNOWN | node.operations:
            raise ProblemError("operation-unsupported")
        if len(node.waiting) >= MAX_WAITING:
            raise ProblemError("node-unreachable", "Too many commands wait for the node; retry.")
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        node.waiting[command.command_id] = waiting
        node.wake()
        try:
            async with asyncio.timeout(self._verdict_timeout):
                return await waiting.verdict
        except TimeoutError as error:
            raise self._no_verdict(waiting) from error
        finally:
            del node.waiting[command.command_id]

    async def poll(
        self, node_id: str, *, wait: float, most: int, operations: Iterable[str] = ()
    ) -> list[Command]:
        """Return up to `most` commands, oldest first, as soon as there are any, else none after `wait` seconds.

        `operations` are those that the node knows beside the ones that every node knows.
        """
        node = self._node(node_id)
        node.operations = frozenset(operations)
        deadline = self._clock() + wait
        node.open_polls += 1
        try:
            while not (due := self._due(node)[:most]):
                patience = min(deadline, self._next_redelivery(node)) - self._clock()
                if self.is_closing or self._clock() >= deadline:
                    return []
                try:
                    async with asyncio.timeout(max(patience, 0)):
                        await node.changed.wait()
                except TimeoutError:
                    continue
        finally:
            node.open_polls -= 1
            self.touch(node_id)
        for waiting in due:
            waiting.delivered_at = self._clock()
        return [_known_to(node, waiting.command) for waiting in due]

    def settle(self, node_id: str, command_id: str, verdict: Verdict) -> Command:
        """Give the caller the node's verdict; return the command it answers.

        Raises:
            ProblemError: `not-found` when nobody waits for it (the node drops it), `validation-failed` when it
                does not answer the command.
        """
        self.touch(node_id)
        waiting = self._node(node_id).waiting.get(command_id)
        if waiting is None:
            raise ProblemError("not-found")
        if not _answers(verdict, waiting.command, node_id):
            raise ProblemError(
                "validation-failed",
                "The verdict does not answer the command.",
                errors=[FieldError(field="outcome", message="does not fit the command")],
            )
        if not waiting.verdict.done():
            waiting.verdict.set_result(verdict)
        return waiting.command

    @property
    def is_closing(self) -> bool:
        """Whether the process is about to stop."""
        return self._closing.is_set()

    async def idle(self, seconds: float) -> None:
        """Wait, but not while the process wants to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def close(self) -> None:
        """End every poll and every wait now: the process is about to stop."""
        self._closing.set()
        for node in self._nodes.values():
            node.wake()
            for waiting in node.waiting.values():
                if not waiting.verdict.done():
                    waiting.verdict.set_exception(self._no_verdict(waiting))

    def _node(self, node_id: str) -> _Node:
        """The node, which has shown that it exists; those that are gone make room for it."""
        if node_id not in self._nodes:
            silent = [
                name
                for name, node in self._nodes.items()
                if not node.waiting and not self._is_present(node)
            ]
            for name in silent:
                del self._nodes[name]
            self._nodes[node_id] = _Node()
        return self._nodes[node_id]

    def _is_present(self, node: _Node) -> bool:
        if node.open_polls:
            return True
        return node.seen_at is not None and self._clock() - node.seen_at <= self._presence

    def _due(self, node: _Node) -> list[_Waiting]:
        latest = self._clock() - self._redelivery
        return [
            waiting
            for waiting in node.waiting.values()
            if not waiting.verdict.done()
            and (waiting.delivered_at is None or waiting.delivered_at <= latest)
        ]

    def _next_redelivery(self, node: _Node) -> float:
        delivered = [
            waiting.delivered_at + self._redelivery
            for waiting in node.waiting.values()
            if waiting.delivered_at is not None and not waiting.verdict.done()
        ]
        return min(delivered, default=float("inf"))

    @staticmethod
    def _no_verdict(waiting: _Waiting) -> ProblemError:
        if waiting.delivered_at is None:
            return ProblemError("node-unreachable")
        return ProblemError("outcome-unknown", _NO_ANSWER)


def _known_to(node: _Node, command: Command) -> Command:
    """The command as the node reads it: one that does not know signatures is told of none."""
    if SIGNATURES in node.operations:
        return command
    return command.model_copy(update={"signature": None})


def _answers(verdict: Verdict, command: Command, node_id: str) -> bool:
    """Whether the verdict is one for this operation, this job and this tenant."""
    if verdict.outcome == "rejected":
        return verdict.problem is not None
    if command.operation == "logs":
        log = verdict.log
        return log is not None and (log.node_id, log.tenant_id, log.job_id) == (
            node_id,
            command.tenant_id,
            command.job_id,
        )
    if command.operation == "receipt":
        claim = verdict.receipt.claim() if verdict.receipt is not None else None
        run = claim.predicate if claim is not None else None
        return run is not None and (run.node_id, run.tenant_id, run.job_id) == (
            node_id,
            command.tenant_id,
            command.job_id,
        )
    if command.operation == "inspect":
        view = verdict.job
        return view is not None and (view.node_id, view.job.tenant_id, view.job.job_id) == (
            node_id,
            command.tenant_id,
            command.job_id,
        )
    answer = verdict.acceptance if command.operation == "submit" else verdict.cancellation
    return answer is not None and (answer.node_id, answer.job_id) == (node_id, command.job_id)
