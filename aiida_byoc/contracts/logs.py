"""What a job's program says, read in chunks by byte offsets. `docs/contracts/job-logs.md`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aiida_byoc.contracts.array import MAX_TASKS
from aiida_byoc.contracts.base import Fact, Order
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.lifecycle import ExecutionState

__all__ = ["MAX_LOG_CHUNK", "Encoding", "LogChunk", "LogRequest", "LogStream", "written"]

MAX_LOG_CHUNK = 64 * 1024
"""Most bytes of a stream in one chunk."""

_MOST = 2**53 - 1
"""Every JSON reader knows integers up to this (RFC 7493)."""

LogStream = Literal["stdout", "stderr"]
Encoding = Literal["utf-8", "base64"]


class LogRequest(Order):
    """Which part of which stream is wanted."""

    stream: LogStream = "stdout"
    offset: Annotated[
        int, Field(ge=-_MOST, le=_MOST, description="bytes; below 0: from its end")
    ] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_LOG_CHUNK, description="bytes")] = MAX_LOG_CHUNK
    attempt: (
        Annotated[int, Field(ge=1, le=10_000, description="the newest when left out")] | None
    ) = None
    task: (
        Annotated[int, Field(ge=0, le=MAX_TASKS - 1, description="number of a task of an array")]
        | None
    ) = None


class LogChunk(Fact):
    """A part of one stream of one attempt, byte for byte."""

    node_id: Name
    tenant_id: Name
    job_id: Name
    state: ExecutionState = Field(strict=False)
    latest_attempt: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=1)]
    stream: LogStream
    task: Annotated[int, Field(ge=0, description="the one whose stream it is")] | None = None
    offset: Annotated[int, Field(ge=0, description="bytes")]
    next_offset: Annotated[int, Field(ge=0, description="bytes")]
    size: Annotated[int, Field(ge=0, description="bytes in the stream by now")]
    encoding: Encoding
    data: Annotated[str, Field(max_length=2 * MAX_LOG_CHUNK)]
    complete: bool

    @property
    def content(self) -> bytes:
        """The bytes."""
        if self.encoding == "utf-8":
            return self.data.encode()
        return base64.b64decode(self.data, validate=True)

    @model_validator(mode="after")
    def _says_how_much_it_holds(self) -> LogChunk:
        try:
            length = len(self.content)
        except binascii.Error as error:
            raise ValueError("data must be base64 where encoding says so") from error
        if self.next_offset != self.offset + length:
            raise ValueError("next_offset must be offset and the bytes in data")
        return self


def written(content: bytes, *, more: bool, limit: int) -> tuple[Encoding, str, int]:
    """How bytes travel: as text where they are UTF-8, else in base64; and how many of them.

    Args:
        more: further bytes may follow. A character that is cut off at the end then waits for its rest, unless no
            chunk of `limit` bytes could ever hold it.
    """
    try:
        return "utf-8", content.decode(), len(content)
    except UnicodeDecodeError as error:
        is_cut_off = error.reason == "unexpected end of data" and error.end == len(content)
        if is_cut_off and more and (error.start or len(content) < limit):
            return "utf-8", content[: error.start].decode(), error.start
    return "base64", base64.b64encode(content).decode(), len(content)
