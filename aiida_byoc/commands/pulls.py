"""Images that accepted jobs wait for: wanted with the job, claimed by a lane of the agent, settled in the end.

The row is locked by whoever wants the image and by whoever settles it, so that no job waits for a row that is gone, and
none is launched past one that is coming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts.failures import job_error
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox

__all__ = ["Pull", "claim", "done", "give_up", "postpone", "want"]

_WANT = """
INSERT INTO byoc.image_pull (digest, repository, max_mib) VALUES (%s, %s, %s)
ON CONFLICT (digest, repository) DO UPDATE SET max_mib = greatest(image_pull.max_mib, excluded.max_mib)
"""

_WAITING = """
SELECT submission_id::text FROM byoc.job
WHERE state = 'accepted' AND placement ->> 'image_digest' = %(digest)s
  AND placement #>> '{pull,repository}' = %(repository)s
ORDER BY accepted_at
"""

# A lane's own claims are void when it asks anew: whoever made them is gone.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT digest, repository FROM byoc.image_pull
    WHERE not_before <= now() AND (lane IS NULL OR lane = %(lane)s)
    ORDER BY lane NULLS LAST, not_before LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE byoc.image_pull AS pull SET lane = %(lane)s FROM due
WHERE pull.digest = due.digest AND pull.repository = due.repository
RETURNING pull.digest, pull.repository, max_mib, failures, EXISTS (
    SELECT FROM byoc.job WHERE state = 'accepted' AND placement ->> 'image_digest' = pull.digest
    AND placement #>> '{pull,repository}' = pull.repository
) AS is_wanted
"""

_POSTPONE = """
UPDATE byoc.image_pull SET lane = NULL, failures = failures + 1, message = %(message)s,
    not_before = now() + %(seconds)s * interval '1 second'
WHERE digest = %(digest)s AND repository = %(repository)s
"""


@dataclass(frozen=True)
class Pull:
    """One image that jobs wait for.

    Attributes:
        failures: how often it was tried in vain.
        is_wanted: whether any job still waits.
    """

    digest: str
    repository: str
    max_mib: int
    failures: int
    is_wanted: bool


def want(connection: psycopg.Connection, placement: Placement) -> None:
    """Let the job that is placed so wait for its image, if it is to be pulled."""
    if placement.pull is not None:
        wanted = (placement.image_digest, placement.pull.repository, placement.pull.max_mib)
        connection.execute(_WANT, wanted)


def claim(connection: psycopg.Connection, lane: str) -> Pull | None:
    """Take the image that is due longest; no other lane takes it until it is settled."""
    rows = connection.cursor(row_factory=class_row(Pull))
    return rows.execute(_CLAIM, {"lane": lane}).fetchone()


def done(connection: psycopg.Connection, pull: Pull) -> None:
    """The image is there, wherever from, or nobody wants it: nobody waits for it any more."""
    connection.execute("DELETE FROM byoc.image_pull WHERE digest = %s", (pull.digest,))


def postpone(connection: psycopg.Connection, pull: Pull, message: str, seconds: float) -> None:
    """Try again later."""
    connection.execute(_POSTPONE, {**_name(pull), "message": message, "seconds": seconds})


def give_up(connection: psycopg.Connection, pull: Pull, message: str) -> int:
    """Fail every job that waits for the image; return how many."""
    error = job_error("image_pull_failed", message)
    report = outbox.Report(
        state=ExecutionState.FAILED, occurred_at=datetime.now(UTC), facts={"error": error}
    )
    with connection.transaction():
        # First, and on its own: whoever wants the image now waits, and begins anew; whoever did is seen below.
        connection.execute(
            "DELETE FROM byoc.image_pull WHERE digest = %(digest)s AND repository = %(repository)s",
            _name(pull),
        )
        waiting = connection.execute(_WAITING, _name(pull)).fetchall()
        told = [outbox.append(connection, submission, report) for (submission,) in waiting]
    return sum(seq is not None for seq in told)


def _name(pull: Pull) -> Mapping[str, Any]:
    return {"digest": pull.digest, "repository": pull.repository}
