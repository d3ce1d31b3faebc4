"""What an operator decides about events: try again, give up, send once more, begin a new epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

__all__ = ["NotQuarantined", "Replay", "drop", "epoch", "epochs", "quarantined", "replay", "retry"]

_JOBS_AT_ONCE = 1000
_FIRST = "00000000-0000-0000-0000-000000000000"

_QUARANTINED = """
SELECT 'quarantined' AS status, stream.quarantined_at::timestamptz(0)::text AS since, job.tenant_id, job.job_id,
       (stream.quarantine ->> 'seq')::integer AS seq, stream.latest_seq - stream.acked_seq AS waiting,
       stream.quarantine ->> 'code' AS code, stream.quarantine ->> 'message' AS message,
       NULL AS dropped_by, NULL AS reason
FROM byoc.stream JOIN byoc.job USING (submission_id) WHERE stream.quarantine IS NOT NULL
UNION ALL
SELECT 'dropped', dropped.dropped_at::timestamptz(0)::text, job.tenant_id, job.job_id, dropped.seq, NULL,
       dropped.refusal ->> 'code', dropped.refusal ->> 'message', dropped.dropped_by, dropped.reason
FROM byoc.dropped JOIN byoc.job USING (submission_id)
ORDER BY status DESC, since, tenant_id, job_id, seq
"""

_RETRY = """
UPDATE byoc.stream SET quarantine = NULL, quarantined_at = NULL, failures = 0, not_before = now()
FROM byoc.job WHERE job.submission_id = stream.submission_id AND quarantine IS NOT NULL
  AND (%(tenant)s::text IS NULL OR job.tenant_id = %(tenant)s) AND (%(job)s::text IS NULL OR job.job_id = %(job)s)
"""

_DROP = """
INSERT INTO byoc.dropped (submission_id, seq, refusal, reason, dropped_by)
SELECT submission_id, (quarantine ->> 'seq')::integer, quarantine, %(reason)s, %(by)s
FROM byoc.stream JOIN byoc.job USING (submission_id)
WHERE job.tenant_id = %(tenant)s AND job.job_id = %(job)s AND quarantine IS NOT NULL FOR UPDATE OF stream
RETURNING seq
"""

_REPLAY = """
WITH streams AS (
    SELECT stream.submission_id, acked_seq, quarantine IS NOT NULL AS stands
    FROM byoc.stream JOIN byoc.job USING (submission_id)
    WHERE stream.submission_id > %(after)s
      AND (%(tenant)s::text IS NULL OR job.tenant_id = %(tenant)s) AND (%(job)s::text IS NULL OR job.job_id = %(job)s)
    ORDER BY stream.submission_id LIMIT %(most)s
), goals AS (
    SELECT submission_id, stands, min(seq) - 1 AS goal, max(acked_seq) AS acked_seq
    FROM streams JOIN byoc.deliverable AS event USING (submission_id)
    WHERE seq <= acked_seq AND (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s)
    GROUP BY submission_id, stands
), back AS (
    UPDATE byoc.stream SET acked_seq = goal, failures = 0, not_before = now()
    FROM goals WHERE stream.submission_id = goals.submission_id AND stream.acked_seq > goal
)
SELECT (SELECT max(submission_id::text) FROM streams),
       (SELECT count(*) FROM goals),
       (SELECT count(*) FROM goals JOIN byoc.deliverable AS event USING (submission_id)
        WHERE seq > goal AND seq <= acked_seq),
       (SELECT count(*) FROM goals WHERE stands)
"""


_EPOCHS = """
SELECT body #>> '{data,epoch}' AS epoch, min(occurred_at)::timestamptz(0)::text AS first_event,
       max(occurred_at)::timestamptz(0)::text AS last_event, count(*) AS events
FROM byoc.event GROUP BY epoch ORDER BY min(occurred_at), max(occurred_at)
"""


class NotQuarantined(Exception):
    """There is nothing of this job to drop."""


@dataclass(frozen=True)
class Replay:
    """What is sent again.

    Attributes:
        quarantined: how many of the jobs stand still until somebody retries or drops the event at fault.
    """

    jobs: int = 0
    events: int = 0
    quarantined: int = 0


def quarantined(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Events that were refused: those that stop their job's stream, then those that were dropped."""
    return connection.cursor(row_factory=dict_row).execute(_QUARANTINED).fetchall()


def retry(
    connection: psycopg.Connection, *, tenant: str | None = None, job: str | None = None
) -> int:
    """Send quarantined streams on, from the event that was refused; return how many there were."""
    return connection.execute(_RETRY, {"tenant": tenant, "job": job}).rowcount


def drop(connection: psycopg.Connection, tenant: str, job: str, *, reason: str, by: str) -> int:
    """Give up the event that stops a job's stream, for good, and send on what follows; return its `seq`.

    Raises:
        NotQuarantined: no event of this job was refused.
    """
    named = {"tenant": tenant, "job": job, "reason": reason, "by": by}
    with connection.transaction():
        row = connection.execute(_DROP, named).fetchone()
        if row is None:
            raise NotQuarantined(f"job {job} of tenant {tenant} is not quarantined")
        retry(connection, tenant=tenant, job=job)
    return int(row[0])


def replay(
    connection: psycopg.Connection,
    *,
    tenant: str | None = None,
    job: str | None = None,
    since: datetime | None = None,
) -> Replay:
    """Send delivered events once more: of each job all, or from its first event that happened at `since` or later.

    The product answers `duplicate` to what it has. What was dropped, or is no longer kept, is left out. A job that
    is set back waits behind those that were waiting already.
    """
    total = Replay()
    wanted: Mapping[str, Any] = {
        "tenant": tenant,
        "job": job,
        "since": since,
        "most": _JOBS_AT_ONCE,
    }
    after: str | None = _FIRST
    while after is not None:  # in portions: a hook waits for the row of its job
        row = connection.execute(_REPLAY, {**wanted, "after": after}).fetchone()
        assert row is not None  # noqa: S101  (a query of aggregates)
        after, jobs, events, stands = row
        total = Replay(total.jobs + jobs, total.events + events, total.quarantined + stands)
    return total


def epoch(connection: psycopg.Connection, *, new: bool = False) -> str:
    """The epoch of events recorded from now on; `new` begins one, and events already recorded keep theirs."""
    if new:
        connection.execute("UPDATE byoc.node SET nonce = gen_random_uuid()")
    row = connection.execute("SELECT byoc.epoch()").fetchone()
    assert row is not None  # noqa: S101  (a function)
    return str(row[0])


def epochs(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """The epochs of the events that are kept, the oldest first: the order in which a new product must accept them."""
    return connection.cursor(row_factory=dict_row).execute(_EPOCHS).fetchall()
