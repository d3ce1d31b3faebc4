"""One part of what an attempt wrote: from the cluster until it was fetched, from AiiDA's repository afterwards.

Both hold the same bytes at the same places: a program's streams only grow, and they are fetched after its end. So a
reader that goes on from an offset neither misses nor repeats anything when the source changes. What the tasks of an
array wrote stays on the cluster.
"""

from __future__ import annotations

import base64
import shlex
import time
from dataclasses import dataclass
from typing import Any

from aiida.orm import AuthInfo, CalcJobNode, load_node
from aiida.transports import Transport

from aiida_byoc.runtimes.in_job import TASK_RECORD
from aiida_byoc.runtimes.in_job.array_task import directory_of
from aiida_byoc.workflows.outcome import gone

__all__ = ["COMMAND_SECONDS", "Part", "Source"]

COMMAND_SECONDS = 8
"""How long the cluster may take over one part."""
_OPEN_SECONDS = 60.0
"""A connection that nobody has used for so long is closed."""
_RETRIEVED = "retrieved"

# A link would be followed by this user, not by the job's container, so none is.
_READ = """\
cd {directory} 2> /dev/null || {{ echo 0 0 0; exit; }}
closed=0
[ ! -e ./{record} ] || [ -z "{record}" ] || closed=1
[ -f {name} ] && [ ! -L {name} ] || {{ echo 0 0 $closed; exit; }}
size=$(stat -c %s {name}) || exit
from={offset}
[ "$from" -ge 0 ] || from=$((size + from))
[ "$from" -ge 0 ] || from=0
echo "$size $from $closed"
[ "$from" -ge "$size" ] || tail -c +$((from + 1)) {name} | head -c {limit} | base64 --wrap=0
echo
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of a stream.

    Attributes:
        offset: where they begin.
        size: how long the stream is by now, in bytes.
        is_closed: whether it will never be longer.
    """

    content: bytes
    offset: int
    size: int
    is_closed: bool


class Source:
    """Reads parts, and keeps connections to clusters open for a while.

    Args:
        storage: AiiDA's.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._connections: dict[int, tuple[Transport, float]] = {}

    def read(
        self, attempt_pk: int, stream: str, *, offset: int, limit: int, task: int | None = None
    ) -> Part:
        """Up to `limit` bytes from `offset` on, which counts from the stream's end below 0.

        Of a `task` of an array its own stream, which is closed once the task has its record.

        Whatever the transport raises, or `OSError`, when the cluster cannot be asked now.
        """
        self._storage.get_session().rollback()  # nothing may be remembered of an earlier look
        attempt = load_node(attempt_pk)
        is_closed = gone(attempt)  # asked first: then nothing was written since
        links = attempt.base.links.get_outgoing(link_label_filter=_RETRIEVED)
        retrieved = links.first()
        if retrieved is not None and task is None:
            return _from_repository(retrieved.node, stream, offset, limit)
        directory = attempt.get_remote_workdir()
        if directory is None:
            return Part(content=b"", offset=max(offset, 0), size=0, is_closed=is_closed)
        if task is not None:
            directory = f"{directory}/{directory_of(task)}"  # type: ignore[no-untyped-call]
        command = _READ.format(
            directory=shlex.quote(directory),
            name=shlex.quote(stream),
            record=TASK_RECORD if task is not None else "",
            offset=offset,
            limit=limit,
        )
        said = self._execute(attempt, f"timeout {COMMAND_SECONDS} bash -c {shlex.quote(command)}")
        return _from_cluster(said, offset, is_closed=is_closed)

    def close_idle(self) -> None:
        """Close connections that nobody used for a while."""
        before = time.monotonic() - _OPEN_SECONDS
        for key in [key for key, (_, used) in self._connections.items() if used < before]:
            self._close(key)

    def _execute(self, attempt: CalcJobNode, command: str) -> str:
        authinfo: AuthInfo = attempt.get_authinfo()
        key = int(authinfo.pk)
        transport = self._connections[key][0] if key in self._connections else None
        if transport is None:
            transport = authinfo.get_transport()
            transport.open()
        self._connections[key] = transport, time.monotonic()
        try:
            status, output, said = transport.exec_command_wait(command)
        except Exception:
            self._close(key)
            raise
        if status != 0:  # 124: it was still at it
            raise OSError(f"the command ended with status {status}: {said.strip()[:300]}")
        return str(output)

    def _close(self, key: int) -> None:
        transport, _ = self._connections.pop(key)
        transport.close()


def _from_cluster(said: str, asked: int, *, is_closed: bool) -> Part:
    numbers, _, content = said.partition("\n")
    size, offset, ended = (int(word) for word in numbers.split())
    if size == 0:
        offset = max(asked, 0)
    return Part(
        content=base64.b64decode(content.strip(), validate=True),
        offset=offset,
        size=size,
        is_closed=is_closed or ended == 1,
    )


def _from_repository(retrieved: Any, stream: str, offset: int, limit: int) -> Part:
    try:
        with retrieved.base.repository.open(stream, "rb") as file:
            size = file.seek(0, 2)
            start = offset if offset >= 0 else max(0, size + offset)
            file.seek(min(start, size))
            return Part(content=file.read(limit), offset=start, size=size, is_closed=True)
    except FileNotFoundError:  # the job never came to write it
        return Part(content=b"", offset=max(offset, 0), size=0, is_closed=True)
