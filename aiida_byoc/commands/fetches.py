"""Files that accepted jobs wait for, as lanes of the agent take them up and settle them.

A row is there from the acceptance of its job until the file is in the node's store, or the job failed for want of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row

from aiida_byoc.commands.inputs import UNAVAILABLE
from aiida_byoc.contracts.events import one_line
from aiida_byoc.contracts.failures import job_error
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox

__all__ = ["Fetch", "claim", "done", "drop", "give_up", "is_wanted", "postpone", "wanted"]

# A lane's own claims are void when it asks anew: whoever made them is gone. One lane fetches a file for all jobs of a
# tenant that want it.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT mine.submission_id, mine.sha256 FROM byoc.input_fetch AS mine JOIN byoc.job USING (submission_id)
    WHERE not_before <= now() AND (lane IS NULL OR lane = %(lane)s) AND NOT EXISTS (
        SELECT FROM byoc.input_fetch AS other JOIN byoc.job AS others ON others.submission_id = other.submission_id
        WHERE other.sha256 = mine.sha256 AND others.tenant_id = job.tenant_id AND other.lane <> %(lane)s)
    ORDER BY lane NULLS LAST, not_before LIMIT 1 FOR UPDATE OF mine SKIP LOCKED
)
UPDATE byoc.input_fetch AS mine SET lane = %(lane)s FROM due JOIN byoc.job USING (submission_id)
WHERE mine.submission_id = due.submission_id AND mine.sha256 = due.sha256
RETURNING mine.submission_id::text, job.tenant_id, mine.sha256, mine.url, mine.failures, coalesce((
    SELECT min(each ->> 'name') FROM jsonb_array_elements(job.command #> '{workload,inputs}') AS each
    WHERE each ->> 'url' = mine.url
), CASE mine.url WHEN job.command #>> '{workload,tasks,file,url}' THEN 'tasks' END) AS name
"""

_DONE = """
DELETE FROM byoc.input_fetch USING byoc.job WHERE job.submission_id = input_fetch.submission_id
    AND job.tenant_id = %(tenant_id)s AND input_fetch.sha256 = %(sha256)s
"""

_POSTPONE = """
UPDATE byoc.input_fetch SET lane = NULL, failures = failures + 1, message = %(message)s,
    not_before = now() + %(seconds)s * interval '1 second'
WHERE submission_id = %(submission_id)s AND sha256 = %(sha256)s
"""


@dataclass(frozen=True)
class Fetch:
    """One file that one job waits for.

    Attributes:
        failures: how often it was tried in vain.
        name: what the job calls it; `None` for a job that is forgotten.
    """

    submission_id: str
    tenant_id: str
    sha256: str
    url: str
    failures: int
    name: str | None


def claim(connection: psycopg.Connection, lane: str) -> Fetch | None:
    """Take the file that is due longest; no other lane takes it until it is settled."""
    rows = connection.cursor(row_factory=class_row(Fetch))
    return rows.execute(_CLAIM, {"lane": lane}).fetchone()


def is_wanted(connection: psycopg.Connection, fetch: Fetch) -> bool:
    """Whether the job still waits: it may have been cancelled, or have passed its deadline."""
    query = "SELECT true FROM byoc.job WHERE submission_id = %s AND state = 'accepted'"
    return connection.execute(query, (fetch.submission_id,)).fetchone() is not None


def done(connection: psycopg.Connection, fetch: Fetch) -> None:
    """The file is there: no job of the tenant waits for it any more."""
    connection.execute(_DONE, _names(fetch))


def drop(connection: psycopg.Connection, fetch: Fetch) -> None:
    """Nothing is to be fetched for the job any more."""
    connection.execute(
        "DELETE FROM byoc.input_fetch WHERE submission_id = %s", (fetch.submission_id,)
    )


def postpone(connection: psycopg.Connection, fetch: Fetch, message: str, seconds: float) -> None:
    """Try again later."""
    values = {**_names(fetch), "message": one_line(message), "seconds": seconds}
    connection.execute(_POSTPONE, values)


def give_up(connection: psycopg.Connection, fetch: Fetch, message: str) -> None:
    """Fail the job."""
    report = outbox.Report(
        state=ExecutionState.FAILED,
        occurred_at=datetime.now(UTC),
        facts={"error": job_error(UNAVAILABLE, message)},
    )
    with connection.transaction():
        outbox.append(connection, fetch.submission_id, report)
        drop(connection, fetch)


def wanted(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """What jobs that have not ended read, as (tenant, sha256): it stays where it is."""
    rows = connection.execute(
        "SELECT tenant_id, each ->> 'sha256' FROM byoc.job"
        " CROSS JOIN LATERAL jsonb_array_elements("
        " CASE WHEN command #>> '{workload,kind}' IN ('container', 'array')"
        " THEN command #> '{workload,inputs}' ELSE '[]' END"
        " || coalesce(command #> '{workload,tasks,file}', '[]')) AS each"
        " WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held') AND each ? 'url'"
    )
    return {(tenant, sha256) for tenant, sha256 in rows}


def _names(fetch: Fetch) -> Mapping[str, object]:
    return {
        "submission_id": fetch.submission_id,
        "tenant_id": fetch.tenant_id,
        "sha256": fetch.sha256,
    }
