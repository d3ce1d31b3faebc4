"""What ledger and provenance hold about one ended job, as rows.

Read with SQL, not with AiiDA: agent and command line say the same, and the agent has no AiiDA. AiiDA's repository keeps
files by their SHA-256, so a node's metadata hold the hashes of its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.contracts.lifecycle import TERMINAL
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Facts", "Linked", "read", "repository_files"]

Row = Mapping[str, Any]

_JOB = """
SELECT node.node_id, job.submission_id::text, job.tenant_id, job.workspace_id, job.job_id, job.fingerprint,
       job.trace_id, job.accepted_at, job.state::text, job.command, job.placement, job.process_pk,
       event.body -> 'data' AS told
FROM byoc.node, byoc.job JOIN byoc.event USING (submission_id, seq)
WHERE tenant_id = %s AND job_id = %s AND state IS NOT NULL
"""
_CHAIN = """
SELECT id AS pk, uuid::text, process_type, attributes - 'checkpoints' AS attributes, repository_metadata AS files
FROM db_dbnode WHERE id = %s
"""
_CALCULATIONS = """
SELECT calculation.id AS pk, calculation.uuid::text, calculation.process_type,
       calculation.attributes - 'checkpoints' AS attributes, calculation.repository_metadata AS files,
       computer.label AS computer, substring(link.label FROM '^iteration_([0-9]+)$')::integer AS attempt
FROM byoc.descendants(%(chain)s) AS below JOIN db_dbnode AS calculation ON calculation.id = below.process_pk
LEFT JOIN db_dbcomputer AS computer ON computer.id = calculation.dbcomputer_id
LEFT JOIN db_dblink AS link
    ON link.output_id = calculation.id AND link.input_id = %(chain)s AND link.type = 'call_calc'
WHERE calculation.node_type LIKE 'process.calculation.calcjob.%%' ORDER BY calculation.id
"""
_LINKED = """
SELECT link.process, link.direction, link.label, data.id AS pk, data.uuid::text, data.repository_metadata AS files,
       CASE WHEN link.label IN ('command', 'placement', 'record') THEN data.attributes END AS content
FROM (
    SELECT output_id AS process, 'input' AS direction, label, input_id AS data FROM db_dblink
    WHERE output_id = ANY(%(processes)s) AND type IN ('input_calc', 'input_work')
    UNION ALL
    SELECT input_id, 'output', label, output_id FROM db_dblink
    WHERE input_id = ANY(%(processes)s) AND type IN ('create', 'return')
) AS link JOIN db_dbnode AS data ON data.id = link.data
"""
_RECORDS = """
SELECT made.output_id AS pk, record.attributes -> 'outputs' AS outputs
FROM db_dblink AS made
JOIN db_dblink AS beside ON beside.input_id = made.input_id AND beside.type = 'create' AND beside.label = 'record'
JOIN db_dbnode AS record ON record.id = beside.output_id
WHERE made.output_id = ANY(%s) AND made.type = 'create'
"""
"""What the jobs recorded whose files are somebody's inputs, by those files."""


@dataclass(frozen=True)
class Linked:
    """A node of data beside a process: its files by path, each with its SHA-256; content where that is wanted."""

    pk: int
    files: Mapping[str, str]
    content: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Attributes: `recorded`: what earlier jobs recorded of nodes that are inputs, by the node."""

    job: Row
    chain: Row | None
    calculations: Sequence[Row]
    inputs: Mapping[int, Mapping[str, Linked]]
    outputs: Mapping[int, Mapping[str, Linked]]
    recorded: Mapping[int, Sequence[Row]]
    node_seconds: Mapping[int, float]


def read(connection: psycopg.Connection, tenant_id: str, job_id: str) -> Facts:
    """Gather them, all of one moment.

    Raises:
        ProblemError: `not-found` for a job of nobody or of another tenant, `job-not-ended`, or `receipt-unavailable`
            where the job's provenance was deleted.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor = connection.cursor(row_factory=dict_row)
        job = cursor.execute(_JOB, (tenant_id, job_id)).fetchone()
        if job is None:
            raise ProblemError("not-found")
        if job["state"] not in TERMINAL:
            raise ProblemError(
                "job-not-ended", f"The job is {job['state']}; ask when it has ended."
            )
        seconds = cursor.execute(
            "SELECT attempt, node_seconds FROM byoc.usage WHERE submission_id = %s",
            (job["submission_id"],),
        ).fetchall()
        chain, calculations, linked, recorded = _provenance(cursor, job)
    return Facts(
        job=job,
        chain=chain,
        calculations=calculations,
        inputs=_by_process(linked, "input"),
        outputs=_by_process(linked, "output"),
        recorded={row["pk"]: row["outputs"] for row in recorded},
        node_seconds={row["attempt"]: row["node_seconds"] for row in seconds},
    )


def repository_files(metadata: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The files that AiiDA keeps of a node: path and SHA-256."""
    for name, entry in metadata.get("o", {}).items():
        if "k" in entry:
            yield above + name, entry["k"]
        yield from repository_files(entry, f"{above}{name}/")


def _provenance(
    cursor: psycopg.Cursor[Any], job: Row
) -> tuple[Row | None, list[Row], list[Row], list[Row]]:
    pk = job["process_pk"]
    if pk is None:  # it ended before it was launched
        return None, [], [], []
    chain = cursor.execute(_CHAIN, (pk,)).fetchone()
    if chain is None:
        raise ProblemError(
            "receipt-unavailable", "The job's provenance was deleted from the node's AiiDA profile."
        )
    calculations = cursor.execute(_CALCULATIONS, {"chain": pk}).fetchall()
    processes = [pk, *(row["pk"] for row in calculations)]
    linked = cursor.execute(_LINKED, {"processes": processes}).fetchall()
    given = [row["pk"] for row in linked if row["label"].startswith("given__")]
    return chain, calculations, linked, cursor.execute(_RECORDS, (given,)).fetchall()


def _by_process(linked: Sequence[Row], direction: str) -> dict[int, dict[str, Linked]]:
    found: dict[int, dict[str, Linked]] = {}
    for row in linked:
        if row["direction"] == direction:
            data = Linked(row["pk"], dict(repository_files(row["files"])), row["content"] or {})
            found.setdefault(row["process"], {})[row["label"]] = data
    return found
