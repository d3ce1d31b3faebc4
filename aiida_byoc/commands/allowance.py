"""Whether a tenant's quotas have room for one more job, decided in the transaction that accepts it.

One tenant's acceptances follow each other (a lock until the commit), so two of them never both see the last place.
Others' are not held up, nor is anybody's who has no such quota.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import psycopg

from aiida_byoc.commands.quotas import Quota, asked_node_seconds
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["one_at_a_time", "refuse_beyond"]

_ONE_AT_A_TIME = 0x62796F67
_HOUR, _DAY = 3600, 86400
_MINUTE = timedelta(seconds=60)
_WHEN_A_JOB_ENDS = 60
"""Seconds; nobody knows when one does."""
_WHEN_JOBS_END_EARLY = 3600

_UNFINISHED = """
SELECT count(*), coalesce(sum(node_seconds), 0) FROM byoc.job
WHERE tenant_id = %s AND state IN ('accepted', 'launched', 'queued', 'running', 'held')
"""
_WAITING = "SELECT count(*) FROM byoc.job WHERE tenant_id = %s AND state = 'accepted'"
_NTH_NEWEST = """
SELECT accepted_at FROM byoc.job WHERE tenant_id = %s AND state IS NOT NULL
ORDER BY accepted_at DESC OFFSET %s LIMIT 1
"""
_USED = (
    "SELECT coalesce(sum(node_seconds), 0) FROM byoc.usage WHERE tenant_id = %s AND ended_at > %s"
)
_LEAVES = """
SELECT min(ended_at) FROM (
    SELECT ended_at, sum(node_seconds) OVER (ORDER BY ended_at) AS less FROM byoc.usage
    WHERE tenant_id = %s AND ended_at > %s
) AS leaving WHERE less >= %s
"""


def one_at_a_time(connection: psycopg.Connection, tenant_id: str) -> None:
    """Wait until no other acceptance of the tenant is under way, and let none begin until the transaction ends."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_ONE_AT_A_TIME, tenant_id)
    )


def refuse_beyond(
    connection: psycopg.Connection,
    command: SubmitJobCommand,
    quota: Quota,
    now: datetime,
    *,
    elements: int = 1,
) -> None:
    """Raise `quota-exceeded` unless one more job fits; `one_at_a_time` must have been asked before.

    The words are about this tenant alone, and name the quota.
    """
    _submissions(connection, command, quota, now)
    _places(connection, command, quota)
    _node_hours(connection, command, quota, now, elements)


def _submissions(
    connection: psycopg.Connection, command: SubmitJobCommand, quota: Quota, now: datetime
) -> None:
    most = quota.submissions_per_minute
    if most is None:
        return
    # With that many since then, there is room again once the oldest of them is a minute old.
    first = _value(connection, _NTH_NEWEST, command.tenant_id, most - 1)
    if first is not None and first > now - _MINUTE:
        pause = math.ceil((first + _MINUTE - now).total_seconds())
        raise _refusal(
            "submissions_per_minute", f"{most} jobs were accepted within a minute", pause
        )


def _places(connection: psycopg.Connection, command: SubmitJobCommand, quota: Quota) -> None:
    if quota.queued is None:
        return
    if quota.running is None:
        waiting, most = _value(connection, _WAITING, command.tenant_id), quota.queued
        what = f"{waiting} jobs wait, the node's policy allows {most}"
    else:
        waiting, most = _unfinished(connection, command)[0], quota.queued + quota.running
        what = (
            f"{waiting} jobs have not ended, the node's policy allows {quota.running} under way and"
            f" {quota.queued} that wait"
        )
    if waiting >= most:
        raise _refusal("queued", what, _WHEN_A_JOB_ENDS)


def _node_hours(
    connection: psycopg.Connection,
    command: SubmitJobCommand,
    quota: Quota,
    now: datetime,
    elements: int,
) -> None:
    if quota.node_hours is None or quota.node_hours_days is None:
        return
    since = now - timedelta(days=quota.node_hours_days)
    used = float(_value(connection, _USED, command.tenant_id, since))
    promised = float(_unfinished(connection, command)[1])
    asked = asked_node_seconds(command, elements)
    excess = used + promised + asked - quota.node_hours * _HOUR
    if excess <= 0:
        return
    leaves = _value(connection, _LEAVES, command.tenant_id, since, excess)
    pauses = [math.ceil((leaves - since).total_seconds())] if leaves else []
    pauses += [_WHEN_JOBS_END_EARLY] if promised else []
    raise _refusal(
        "node_hours",
        f"{used / _HOUR:.2f} node hours ran in the last {quota.node_hours_days} days,"
        f" {promised / _HOUR:.2f} are asked for by jobs that have not ended and {asked / _HOUR:.2f} by this one,"
        f" the node's policy allows {quota.node_hours:g}",
        min(pauses, default=_DAY),
    )


def _unfinished(connection: psycopg.Connection, command: SubmitJobCommand) -> tuple[int, int]:
    row = connection.execute(_UNFINISHED, (command.tenant_id,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _value(connection: psycopg.Connection, query: Any, *arguments: object) -> Any:
    row = connection.execute(query, arguments).fetchone()
    return row[0] if row else None


def _refusal(quota: str, what: str, pause: int) -> ProblemError:
    return ProblemError(
        "quota-exceeded",
        f"The quota {quota} is used up: {what}.",
        retry_after=max(1, min(pause, _DAY)),
    )
