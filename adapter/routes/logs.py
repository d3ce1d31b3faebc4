"""What clients may read of a job: what its program wrote, as it is written and afterwards."""

from __future__ import annotations

import logging
import re
import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from adapter.answers import LOG_HEADERS
from adapter.auth import ClientGuard, ClientIdentity
from adapter.channel import Channel
from adapter.declarations import answer, declare
from adapter.following import Doors, follow
from adapter.routes.asking import ASKING, check_name, decided, order_for
from adapter.settings import Settings
from adapter.sse import MEDIA_TYPE as EVENTS
from adapter.sse import EventStream
from aiida_byoc.contracts import LogChunk, LogRequest
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = ["logs_router"]

LOGS_PROBLEMS = (*ASKING, "validation-failed", "operation-unsupported", "too-many-requests")

_TEXT = "text/plain; charset=utf-8"
_PARAMETERS = ("stream", "offset", "limit", "attempt", "task", "follow")
_NUMBERS = {"offset", "limit", "attempt", "task"}
_PLACE = re.compile(r"(?P<attempt>[1-9][0-9]{0,8}):(?P<offset>0|[1-9][0-9]{0,14})")
_log = logging.getLogger(__name__)


def logs_router(guard: ClientGuard, channel: Channel, settings: Settings) -> APIRouter:
    """The route of logs."""
    router = APIRouter(prefix="/v1/nodes/{node_id}/jobs", tags=["client"])
    doors = Doors(settings.log_requests_per_tenant)

    @router.get(
        "/{job_id}/logs",
        **declare(
            "readLogs",
            credential="client",
            scope="jobs:read",
            answer=answer(200, LogChunk, also=(_TEXT, EVENTS), headers=tuple(LOG_HEADERS)),
            problems=LOGS_PROBLEMS,
            parameters=(*_PARAMETERS, "Last-Event-ID"),
        ),
    )
    async def read_logs(node_id: str, job_id: str, request: Request) -> Response:
        """What the job's program wrote: one chunk, or, followed, all of it as it is written (server-sent events)."""
        client = await guard.admit(request, node_id, scope="jobs:read")
        check_name(job_id)
        wanted, is_followed = _wanted(request)

        async def read_again(part: LogRequest) -> LogChunk:
            # A stream must not outlive the right to it.
            await guard.admit(request, node_id, scope="jobs:read")
            return await read(part)

        async def read(part: LogRequest) -> LogChunk:
            verdict = await channel.submit(node_id, order_for("logs", client, job_id, part))
            return decided(verdict, verdict.log, LOGS_PROBLEMS)

        leave = doors.enter(client.tenant_id)
        try:
            chunk = await read(wanted)
        except BaseException:
            leave()
            raise
        if is_followed:
            _log.info(
                "A client follows a log.",
                extra={
                    "event": "logs.followed",
                    "node_id": node_id,
                    "tenant_id": client.tenant_id,
                    "job_id": job_id,
                },
            )
            until = time.monotonic() + min(settings.follow_seconds, _seconds_left(client))
            return EventStream(
                follow(read_again, chunk, wanted, channel=channel, until=until), leave
            )
        leave()
        if _prefers_text(request):
            return _raw(chunk)
        return JSONResponse(chunk.model_dump(mode="json", exclude_none=True))

    return router


def _wanted(request: Request) -> tuple[LogRequest, bool]:
    """The part that the query names, and whether it is to be followed.

    Raises:
        ProblemError: `validation-failed`, with every parameter at fault.
    """
    values: dict[str, str | int] = {}
    errors: list[FieldError] = []
    for name, value in request.query_params.multi_items():
        if name not in _PARAMETERS or name in values:
            message = "is given twice" if name in values else "is no parameter of this route"
            errors.append(_fault(name, message, "leave it out"))
        elif name in _NUMBERS and not re.fullmatch(r"-?[0-9]{1,16}", value):
            errors.append(_fault(name, "must be an integer", "send digits, without a unit"))
        else:
            values[name] = int(value) if name in _NUMBERS else value
    is_followed = values.pop("follow", "false")
    if is_followed not in {"true", "false"}:
        errors.append(
            _fault("follow", "must be true or false", "send follow=true, or leave it out")
        )
    values.update(_place(request, errors))
    if errors:
        raise ProblemError(
            "validation-failed",
            f"The request does not fit its contract: {len(errors)} field(s) at fault,"
            f" first {errors[0].field}.",
            errors=errors,
        )
    return validated(LogRequest, values, what="request"), is_followed == "true"


def _place(request: Request, errors: list[FieldError]) -> dict[str, int]:
    """Where a client goes on that was cut off: after the last event that it got."""
    last = request.headers.get("last-event-id")
    if not last:
        return {}
    place = _PLACE.fullmatch(last)
    if place is None:
        errors.append(_fault("Last-Event-ID", "is no id of these events", "send one as it came"))
        return {}
    return {name: int(value) for name, value in place.groupdict().items()}


def _fault(name: str, message: str, remedy: str) -> FieldError:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:64])
    return FieldError(field=shown, message=message, remedy=remedy)


def _seconds_left(client: ClientIdentity) -> float:
    """How long the client's token is valid: a stream must not outlive it."""
    return max(0.0, client.expires_at - time.time())


def _prefers_text(request: Request) -> bool:
    accepted = [
        part.partition(";")[0].strip().lower()
        for part in request.headers.get("accept", "").split(",")
    ]
    return "text/plain" in accepted and "application/json" not in accepted


def _raw(chunk: LogChunk) -> Response:
    """The bytes alone; what else there is to say stands in headers."""
    told = chunk.model_dump(mode="json")
    headers = {header: str(told[name]).lower() for header, name in LOG_HEADERS.items()}
    headers["X-Content-Type-Options"] = "nosniff"
    return Response(chunk.content, headers=headers, media_type="text/plain")
