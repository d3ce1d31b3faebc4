"""Acceptance: commands are claimed in the ledger, many in one transaction, each as if it were alone.

The claim is an INSERT guarded by two unique constraints, (tenant, key) and (tenant, job). A loser of the race looks
again in a *new* statement, whose snapshot sees the winner's commit; `INSERT … UNION ALL SELECT` in one
statement would show most losers nothing. The same holds for a command that comes twice in one batch.

Whatever refuses a command does so before anything of it is written, so the rest of its batch is not touched.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from aiida_byoc import crashpoints
from aiida_byoc.commands import allowance, draining, image_use, inputs, pulls
from aiida_byoc.commands.placement import Placement, WorkchainPlacement
from aiida_byoc.commands.quotas import Quota, asked_node_seconds
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.canonical import fingerprint
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.delivery import JobAcceptance
from aiida_byoc.contracts.identity import trace_id_of
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox

__all__ = ["Asked", "accept", "accept_all", "trace_of"]

Place = Callable[[SubmitJobCommand], Placement | WorkchainPlacement]
Row = Mapping[str, Any]

_LOOK = """
SELECT asked.place, (SELECT node_id FROM byoc.node) AS node_id, (SELECT byoc.epoch()) AS epoch,
       (SELECT draining_since FROM byoc.node_state) AS draining_since, earlier.*
FROM unnest(%(tenants)s::text[], %(keys)s::text[], %(jobs)s::text[], %(workspaces)s::text[])
    WITH ORDINALITY AS asked (tenant_id, key, job_id, workspace_id, place)
LEFT JOIN LATERAL (
    SELECT job.submission_id, job.job_id, job.workspace_id, job.idempotency_key, job.fingerprint, job.trace_id,
           job.accepted_at, job.state::text
    FROM byoc.job WHERE job.tenant_id = asked.tenant_id AND job.idempotency_key = asked.key
    UNION
    SELECT job.submission_id, job.job_id, job.workspace_id, job.idempotency_key, job.fingerprint, job.trace_id,
           job.accepted_at, job.state::text
    FROM byoc.job WHERE job.tenant_id = asked.tenant_id AND job.job_id = asked.job_id
        AND (job.state IS NOT NULL OR job.workspace_id = asked.workspace_id)
) AS earlier ON true
ORDER BY asked.place, earlier.workspace_id = asked.workspace_id DESC
"""
"""Key and job in one statement: between two, the same command's own claim could commit and look like a conflict."""

_CLAIM = """
WITH claimed AS (
    INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint, command,
                          placement, trace_id, accepted_at, deadline, node_seconds, state, seq, snapshot)
    VALUES (%(submission_id)s, %(tenant_id)s, %(workspace_id)s, %(job_id)s, %(key)s, %(fingerprint)s, %(command)s,
            %(placement)s, %(trace_id)s, %(accepted_at)s, %(deadline)s, %(node_seconds)s, 'accepted', 1, %(snapshot)s)
    ON CONFLICT DO NOTHING RETURNING submission_id
), told AS (
    INSERT INTO byoc.event (submission_id, seq, event_id, body, occurred_at)
    SELECT submission_id, 1, %(event_id)s, %(event)s, %(accepted_at)s FROM claimed
), streamed AS (
    INSERT INTO byoc.stream (submission_id, latest_seq) SELECT submission_id, 1 FROM claimed
)
SELECT true FROM claimed
"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A command that asks to be accepted, by which key, and when."""

    command: SubmitJobCommand
    key: str
    now: datetime


def accept(
    connection: psycopg.Connection,
    command: SubmitJobCommand,
    key: str,
    *,
    place: Place,
    quota: Callable[[str], Quota] = lambda _: Quota(),
    now: datetime,
) -> tuple[JobAcceptance, bool]:
    """Claim the command; return its acceptance and whether it is a replay.

    A replay is answered alike for ever: before the deadline, the policy and everything else that may have changed.
    `quota` says how much of the node a tenant may have.

    Raises:
        ProblemError: `idempotency-key-reused`, `job-id-conflict`, `job-cancelled`, `command-expired`,
            `node-draining`, `quota-exceeded`, `input-not-found`, or what `place` refuses. Nothing is written then.
    """
    asked = Asked(command=command, key=key, now=now)
    [answer] = accept_all(connection, [asked], place=place, quota=quota)
    if isinstance(answer, ProblemError):
        raise answer
    return answer


def accept_all(
    connection: psycopg.Connection,
    all_asked: Sequence[Asked],
    *,
    place: Place,
    quota: Callable[[str], Quota] = lambda _: Quota(),
) -> list[tuple[JobAcceptance, bool] | ProblemError]:
    """Claim the commands in their order, in one transaction; what `accept` would return of each, or raise."""
    answers: list[tuple[JobAcceptance, bool] | ProblemError] = []
    with connection.transaction():
        image_use.while_accepting(connection)
        # A statement of its own: its snapshot must be younger than the lock.
        for asked, seen in zip(all_asked, _look(connection, all_asked), strict=True):
            try:
                answers.append(_accept(connection, asked, seen, place, quota))
            except ProblemError as refusal:
                answers.append(refusal)
        claimed = any(not isinstance(each, ProblemError) and not each[1] for each in answers)
        if claimed:
            crashpoints.reached("ledger.claimed")
    if claimed:
        crashpoints.reached("ledger.committed")
    return answers


def trace_of(traceparent: str | None) -> str:
    """The trace that a command belongs to, or a new one."""
    return trace_id_of(traceparent) if traceparent else secrets.token_hex(16)


def _accept(
    connection: psycopg.Connection,
    asked: Asked,
    seen: Sequence[Row],
    place: Place,
    quota: Callable[[str], Quota],
) -> tuple[JobAcceptance, bool]:
    command, intent = asked.command, fingerprint("submit", asked.command)
    if (earlier := _earlier(seen, asked, intent)) is not None:
        return earlier, True
    if command.deadline is not None and command.deadline <= asked.now:
        raise ProblemError("command-expired")
    placement = place(command)
    draining.refuse_since(seen[0]["draining_since"])
    bounds = quota(command.tenant_id)
    if bounds.bounds_acceptance:
        allowance.one_at_a_time(connection, command.tenant_id)
        # It may have come meanwhile, and taken the last place.
        if (earlier := _earlier(_look(connection, [asked])[0], asked, intent)) is not None:
            return earlier, True
        allowance.refuse_beyond(connection, command, bounds, asked.now, elements=placement.elements)
    needed = inputs.needed(connection, command)
    acceptance = _claim(connection, asked, intent, placement, seen[0])
    if acceptance is None:
        # Somebody else's commit came between, or the same command in this batch: this statement sees it.
        earlier = _earlier(_look(connection, [asked])[0], asked, intent)
        if earlier is None:
            raise ProblemError("node-failed", retry_after=1)
        return earlier, True
    if isinstance(placement, Placement):
        pulls.want(connection, placement)
    inputs.want(connection, acceptance.submission_id, needed)
    return acceptance, False


def _look(connection: psycopg.Connection, all_asked: Sequence[Asked]) -> list[list[Row]]:
    """By command: what of the node matters to it, once with each row that has its key or its job, or with none.

    Rows of the command's workspace come first.
    """
    wanted = {
        "tenants": [each.command.tenant_id for each in all_asked],
        "keys": [each.key for each in all_asked],
        "jobs": [each.command.job_id for each in all_asked],
        "workspaces": [each.command.workspace_id for each in all_asked],
    }
    found: list[list[Row]] = [[] for _ in all_asked]
    for row in connection.cursor(row_factory=dict_row).execute(_LOOK, wanted):
        found[row["place"] - 1].append(row)
    return found


def _earlier(seen: Sequence[Row], asked: Asked, intent: str) -> JobAcceptance | None:
    """The acceptance that is to be repeated, if the command was claimed before.

    Raises:
        ProblemError: its key or its job belongs to another command.
    """
    rows = [each for each in seen if each["submission_id"] is not None]
    for row in rows:
        if row["idempotency_key"] == asked.key:
            if row["fingerprint"] != intent:
                raise ProblemError("idempotency-key-reused")
            return _acceptance(row)
    if rows:
        raise ProblemError("job-cancelled" if rows[0]["state"] is None else "job-id-conflict")
    return None


def _claim(
    connection: psycopg.Connection,
    asked: Asked,
    intent: str,
    placement: Placement | WorkchainPlacement,
    node: Row,
) -> JobAcceptance | None:
    """Write the claim and its event; `None`, and nothing written, when the key or the job is taken."""
    command = asked.command
    snapshot = {
        "timings": {"accepted": utc_now_text(asked.now)},
        **_image_of(command, placement),
    }
    job = {
        "submission_id": str(uuid.uuid4()),
        "tenant_id": command.tenant_id,
        "workspace_id": command.workspace_id,
        "job_id": command.job_id,
        "trace_id": trace_of(command.traceparent),
        "accepted_at": asked.now,
    }
    event = outbox.first({**job, "node_id": node["node_id"], "epoch": node["epoch"]}, snapshot)
    row = {
        **job,
        "key": asked.key,
        "fingerprint": intent,
        "command": Jsonb(command.model_dump(mode="json", exclude_none=True)),
        "placement": Jsonb(placement.model_dump(mode="json", exclude_none=True)),
        "deadline": command.deadline,
        "node_seconds": asked_node_seconds(command, placement.elements),
        "snapshot": Jsonb(snapshot),
        "event_id": event["id"],
        "event": Jsonb(event),
    }
    if connection.execute(_CLAIM, row).fetchone() is None:
        return None
    return _acceptance({**job, "node_id": node["node_id"]})


def _image_of(
    command: SubmitJobCommand, placement: Placement | WorkchainPlacement
) -> dict[str, Any]:
    """What is to run, in the words of the contract; nothing of a work chain."""
    if not isinstance(placement, Placement):
        return {}
    return {"image": {"reference": command.container.image, "digest": placement.image_digest}}


def _acceptance(row: Row) -> JobAcceptance:
    return JobAcceptance(
        job_id=row["job_id"],
        submission_id=str(row["submission_id"]),
        node_id=row["node_id"],
        accepted_at=row["accepted_at"],
        trace_id=row["trace_id"],
    )
