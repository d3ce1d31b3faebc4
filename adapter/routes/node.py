"""What management nodes ask: commands for me, here is my verdict, here is what happened, I am alive."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from adapter.answers import HeartbeatReceipt, written
from adapter.auth import NodeGuard
from adapter.channel import Channel
from adapter.convex import Convex
from adapter.declarations import answer, declare
from adapter.delivery import Delivery
from adapter.reading import disconnected, json_body
from aiida_byoc.contracts import (
    Acknowledgement,
    Command,
    CommandBatch,
    ExecutionEvent,
    Heartbeat,
    PollRequest,
    Verdict,
)
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, CommandVerdict
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = ["node_router"]

_MAX_POLL_BYTES = 1024 * 1024
_MAX_VERDICT_BYTES = 1024 * 1024
_MAX_EVENTS_BYTES = 8 * 1024 * 1024
_MAX_HEARTBEAT_BYTES = 64 * 1024
_EVENT_MEDIA_TYPES = ("application/cloudevents-batch+json", "application/json")
_TALKING = (
    "unauthenticated",
    "not-found",
    "malformed-request",
    "payload-too-large",
    "unsupported-media-type",
    "validation-failed",
    "product-unavailable",
)
_log = logging.getLogger(__name__)


def node_router(
    guard: NodeGuard, channel: Channel, delivery: Delivery, convex: Convex
) -> APIRouter:
    """The routes of nodes."""
    router = APIRouter(prefix="/v1/nodes/{node_id}", tags=["node"])

    @router.post(
        "/commands/poll",
        **declare(
            "pollCommands",
            credential="node",
            body=PollRequest,
            body_required=False,
            answer=answer(200, CommandBatch),
            problems=_TALKING,
        ),
    )
    async def poll_commands(node_id: str, request: Request) -> Response:
        """Take verdicts, wait for commands. One unanswered is handed out again: executing it must be idempotent."""
        node = await guard.admit(request, node_id)
        body = await json_body(request, _MAX_POLL_BYTES, if_empty={})
        wish = validated(PollRequest, body, what="poll")
        channel.touch(node_id)
        for each in wish.verdicts:
            _settle_if_any_waits(channel, node_id, each)
        poll = channel.poll(
            node_id,
            wait=wish.wait_seconds,
            most=wish.max_commands,
            operations=wish.operations,
        )
        refused = asyncio.ensure_future(guard.until_refused(node))
        try:
            commands = await _unless_gone(request, asyncio.ensure_future(poll), refused)
        except ProblemError as error:
            _log.warning(
                "A node's poll was cut off.",
                extra={
                    "event": "node.cut_off",
                    "problem": error.kind.name,
                    "node_id": node_id,
                    "key_id": node.key_id,
                },
            )
            raise
        return written(CommandBatch(commands=commands, takes_verdicts=True))

    @router.post(
        "/commands/{command_id}/verdict",
        status_code=204,
        **declare(
            "giveVerdict",
            credential="node",
            body=Verdict,
            answer=answer(204),
            problems=_TALKING,
        ),
    )
    async def give_verdict(node_id: str, command_id: str, request: Request) -> Response:
        """Answer a command, after its transaction has committed. 404: nobody waits any more, drop it."""
        await guard.admit(request, node_id)
        body = await json_body(request, _MAX_VERDICT_BYTES)
        verdict = validated(Verdict, body, what="verdict")
        _settle(channel, node_id, command_id, verdict)
        return Response(status_code=204)

    @router.post(
        "/events",
        **declare(
            "deliverEvents",
            credential="node",
            body=list[ExecutionEvent],
            media_types=_EVENT_MEDIA_TYPES,
            answer=answer(200, Acknowledgement),
            problems=(*_TALKING, "epoch-mismatch"),
        ),
    )
    async def deliver_events(node_id: str, request: Request) -> Response:
        """Project a CloudEvents batch; acknowledged is only what the product has stored."""
        node = await guard.admit(request, node_id)
        events = await json_body(request, _MAX_EVENTS_BYTES, media_types=_EVENT_MEDIA_TYPES)
        if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENT_BATCH:
            raise ProblemError(
                "validation-failed",
                errors=[
                    FieldError(
                        field="(body)",
                        message=f"must be an array of 1 to {MAX_EVENT_BATCH} events",
                        remedy="send fewer events, or none at all",
                    )
                ],
            )
        acknowledgement = await delivery.deliver(node, events)
        return written(acknowledgement)

    @router.post(
        "/heartbeat",
        **declare(
            "sendHeartbeat",
            credential="node",
            body=Heartbeat,
            answer=answer(200, HeartbeatReceipt),
            problems=_TALKING,
        ),
    )
    async def send_heartbeat(node_id: str, request: Request) -> Response:
        """Report that the node lives and how it is; the product gets the report if it can take it."""
        await guard.admit(request, node_id)
        body = await json_body(request, _MAX_HEARTBEAT_BYTES)
        heartbeat = validated(Heartbeat, body, what="heartbeat")
        channel.touch(node_id)
        receipt = HeartbeatReceipt(received_at=datetime.now(UTC)).model_dump(mode="json")
        try:
            await convex.record_heartbeat(node_id, heartbeat, receipt["received_at"])
        except ProblemError:
            _log.warning(
                "The product did not take a heartbeat.",
                extra={"event": "heartbeat.not_recorded", "node_id": node_id},
            )
        return JSONResponse(receipt)

    return router


def _settle(channel: Channel, node_id: str, command_id: str, verdict: Verdict) -> None:
    command = channel.settle(node_id, command_id, verdict)
    _log.info(
        "The node answered a command.",
        extra={
            "event": f"command.{verdict.outcome}",
            "node_id": node_id,
            "tenant_id": command.tenant_id,
            "job_id": command.job_id,
        },
    )


def _settle_if_any_waits(channel: Channel, node_id: str, answer: CommandVerdict) -> None:
    """Settle, unless nobody waits or it answers another command, which is no fault of the poll that brought it."""
    try:
        _settle(channel, node_id, answer.command_id, answer.verdict)
    except ProblemError as error:
        _log.info(
            "A verdict answers no command.",
            extra={"event": "verdict.refused", "problem": error.kind.name, "node_id": node_id},
        )


async def _unless_gone(
    request: Request, poll: asyncio.Future[list[Command]], refused: asyncio.Future[None]
) -> list[Command]:
    """The commands of `poll`, or none when the node went away: what it cannot read must not count as delivered.

    Raises:
        ProblemError: what `refused` ended with.
    """
    gone = asyncio.ensure_future(disconnected(request.receive))
    first: set[asyncio.Future[Any]] = {poll, gone, refused}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            refused.result()
        return await poll if poll.done() else []
    finally:
        for one in first:
            one.cancel()
        await asyncio.wait(first)
