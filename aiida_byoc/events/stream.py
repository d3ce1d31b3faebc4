"""How far the product has each job: what the relay claims, reads and notes down, statement by statement.

It takes *jobs* that have something undelivered, not rows behind a cursor: a cursor loses what commits late (measured:
28 % of rows under concurrent commits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, QuarantinedEvent

__all__ = ["FULL", "Claim", "Decision", "claim", "keeps", "read", "release", "settle"]

EVENTS_PER_JOB = 20
"""At most, in one batch."""
FULL = MAX_EVENT_BATCH - EVENTS_PER_JOB
"""A batch of more has left something behind, as far as it can know: the next job's events had no room."""
MAX_BATCH_BYTES = 4 * 2**20
"""Half of what the adapter takes; the last event of a batch may go beyond it."""

_CLAIM = """
WITH due AS (
    SELECT submission_id, not_before, least(latest_seq - acked_seq, %(per_job)s) AS events FROM byoc.stream
    WHERE acked_seq < latest_seq AND quarantine IS NULL AND not_before <= now()
      AND (claimed_by IS NULL OR claimed_by = %(lane)s OR claimed_until <= now())
    ORDER BY not_before, submission_id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), chosen AS (
    SELECT submission_id, sum(events) OVER (ORDER BY not_before, submission_id) AS so_far FROM due
)
UPDATE byoc.stream SET claimed_by = %(lane)s, claimed_until = now() + interval '5 minutes'
FROM chosen WHERE stream.submission_id = chosen.submission_id AND so_far <= %(most)s
RETURNING stream.submission_id::text, acked_seq, latest_seq, not_before
"""
"""A lane's own claims are void when it asks anew: whoever made them is gone. Others' last longer than any POST."""

_BY_INDEX = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off"
"""Statistics of a queue are always stale; a planner that believes them sorts the whole backlog for each batch."""

_READ = """
SELECT place, seq, body FROM (
    SELECT place, seq, body, bytes, sum(bytes) OVER (ORDER BY place, seq) AS so_far
    FROM unnest(%(jobs)s::uuid[], %(acked)s::integer[]) WITH ORDINALITY AS claim (submission_id, acked_seq, place)
    CROSS JOIN LATERAL (
        SELECT seq, body, octet_length(body::text) AS bytes FROM byoc.deliverable
        WHERE deliverable.submission_id = claim.submission_id AND seq > claim.acked_seq
        ORDER BY seq LIMIT %(per_job)s
    ) AS event
) AS sized WHERE so_far - bytes < %(bytes)s ORDER BY place, seq
"""

_EXHAUSTED = """
UPDATE byoc.stream SET acked_seq = %(latest)s
WHERE submission_id = %(job)s AND claimed_by = %(lane)s AND acked_seq = %(acked)s AND NOT EXISTS (
    SELECT FROM byoc.deliverable
    WHERE deliverable.submission_id = %(job)s AND seq > %(acked)s AND seq <= %(latest)s
)
"""
"""What was dropped, or is no longer kept, is not waited for."""

_SETTLE = """
UPDATE byoc.stream SET acked_seq = %(to)s, claimed_by = NULL, claimed_until = NULL, quarantine = %(quarantine)s,
    quarantined_at = CASE WHEN %(quarantine)s::jsonb IS NULL THEN NULL ELSE now() END,
    failures = CASE WHEN %(stuck)s THEN failures + 1 ELSE 0 END,
    not_before = now() + CASE WHEN %(stuck)s THEN random() * least(60, 2 ^ least(failures, 6)) ELSE 0 END
        * interval '1 second'
WHERE submission_id = %(job)s AND claimed_by = %(lane)s AND acked_seq = %(acked)s
"""
"""Nothing is noted of a job that somebody else went on with, or that an operator set back meanwhile."""

_RELEASE = """
UPDATE byoc.stream SET claimed_by = NULL, claimed_until = NULL
WHERE submission_id = ANY(%(jobs)s::uuid[]) AND claimed_by = %(lane)s
"""


@dataclass
class Claim:
    """One job in the hands of one lane, and those of its events that are next.

    Attributes:
        acked: the newest `seq` the product has.
        latest: the newest there was when the job was claimed.
        events: consecutive events as (`seq`, body); empty when the batch had no room, or nothing is left to send.
    """

    job: str
    acked: int
    latest: int
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a claimed job.

    Attributes:
        to: the newest `seq` that need not be sent again.
        stuck: the job made no headway: it waits, longer each time (full jitter, at most 60 s).
        quarantine: why it is not sent on until an operator decides.
    """

    to: int
    stuck: bool = False
    quarantine: QuarantinedEvent | None = None


def claim(connection: psycopg.Connection, lane: str) -> list[Claim]:
    """Take jobs that have something undelivered and are due, those that waited longest first."""
    wanted = {"lane": lane, "per_job": EVENTS_PER_JOB, "most": MAX_EVENT_BATCH}
    with connection.transaction():
        connection.execute(_BY_INDEX)
        rows = connection.execute(_CLAIM, wanted).fetchall()
    rows.sort(key=lambda row: (row[3], row[0]))
    return [Claim(job, acked, latest) for job, acked, latest, _ in rows]


def read(connection: psycopg.Connection, claims: Sequence[Claim]) -> None:
    """Fill in the next events of each claim: at most 100 in all, and a bounded number of bytes."""
    where = {
        "jobs": [each.job for each in claims],
        "acked": [each.acked for each in claims],
        "per_job": EVENTS_PER_JOB,
        "bytes": MAX_BATCH_BYTES,
    }
    for place, seq, body in connection.execute(_READ, where):
        events = claims[place - 1].events
        if not events or seq == events[-1][0] + 1:  # a batch never shows a gap
            events.append((seq, body))


def keeps(connection: psycopg.Connection, job: str, seq: int) -> bool:
    """Whether the outbox can still send that event."""
    query = "SELECT true FROM byoc.deliverable WHERE submission_id = %s AND seq = %s"
    return connection.execute(query, (job, seq)).fetchone() is not None


def settle(
    connection: psycopg.Connection, lane: str, decisions: Sequence[tuple[Claim, Decision]]
) -> int:
    """Note what was decided, and let go of the jobs; return of how many it was noted."""
    rows = []
    for each, decision in sorted(decisions, key=lambda pair: pair[0].job):  # no two lanes deadlock
        refused = decision.quarantine
        values = {
            "lane": lane,
            "job": each.job,
            "acked": each.acked,
            "to": decision.to,
            "stuck": decision.stuck,
            "quarantine": Jsonb(refused.model_dump(mode="json")) if refused else None,
        }
        rows.append(values)
    cursor = connection.cursor()
    cursor.executemany(_SETTLE, rows)
    return cursor.rowcount


def release(connection: psycopg.Connection, lane: str, claims: Sequence[Claim]) -> None:
    """Let go of jobs of which nothing was noted; whoever comes next may take them."""
    for each in claims:
        if not each.events:
            values = {"lane": lane, "job": each.job, "acked": each.acked, "latest": each.latest}
            connection.execute(_EXHAUSTED, values)
    connection.execute(_RELEASE, {"lane": lane, "jobs": [each.job for each in claims]})
