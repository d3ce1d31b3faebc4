"""What four places say about the same jobs, read from where each is written.

The ledger and its events (Postgres), AiiDA's nodes (its own tables), Slurm (its log of finished jobs, its queue) with
what the containers themselves wrote, and the product (Convex, as its users read it).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from disk_objectstore import Container
from psycopg.rows import dict_row

from aiida_byoc.arrays.table import FILENAME
from aiida_byoc.contracts.lifecycle import TERMINAL
from aiida_byoc.runtimes.in_job import ARRAY
from lab import process
from lab.chaos.load import RUNS, Job
from lab.convex import Convex, call
from lab.paths import LabPaths

__all__ = ["ENDED_PROCESS", "Evidence", "gather", "progress", "quiet"]

ENDED_PROCESS = {"finished", "excepted", "killed"}

_JOBS = """
SELECT job.submission_id::text, job.tenant_id, job.job_id, job.state::text, job.seq, job.process_pk,
       stream.acked_seq, stream.latest_seq, stream.quarantine
  FROM byoc.job LEFT JOIN byoc.stream USING (submission_id) WHERE job.job_id = ANY(%s)
"""
_EVENTS = """
SELECT submission_id::text, body->'data' AS data FROM byoc.event WHERE submission_id = ANY(%s::uuid[])
 ORDER BY submission_id, seq
"""
_CHAINS = """
SELECT substr(label, 6) AS submission_id, id, attributes->>'process_state' AS state FROM db_dbnode
 WHERE node_type LIKE 'process.workflow.workchain%%' AND label = ANY(%s)
"""
_CALCULATIONS = """
SELECT substr(chain.label, 6) AS submission_id, link.label AS attempt, child.id,
       child.attributes->>'process_state' AS state
  FROM db_dbnode chain JOIN db_dblink link ON link.input_id = chain.id AND link.type = 'call_calc'
  JOIN db_dbnode child ON child.id = link.output_id
 WHERE chain.node_type LIKE 'process.workflow.workchain%%' AND chain.label = ANY(%s)
"""
_TABLES = """
SELECT DISTINCT ON (chain.label) substr(chain.label, 6) AS submission_id,
       made.repository_metadata->'o'->%s->>'k' AS content
  FROM db_dbnode chain JOIN db_dblink called ON called.input_id = chain.id AND called.type = 'call_calc'
  JOIN db_dbnode attempt ON attempt.id = called.output_id
  JOIN db_dbnode left_by ON left_by.id = attempt.id
       OR left_by.description = 'what the killed ' || attempt.uuid || ' left'
  JOIN db_dblink link ON link.input_id = left_by.id AND link.type = 'create' AND link.label = 'tasks'
  JOIN db_dbnode made ON made.id = link.output_id
 WHERE chain.node_type LIKE 'process.workflow.workchain%%' AND chain.label = ANY(%s)
 ORDER BY chain.label, attempt.id DESC, left_by.id
"""
"""Of an attempt that was killed the table is the output of a calculation beside it."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was found about some jobs.

    Attributes:
        ledger: rows of `byoc.job` with their streams.
        events: submission → the data of its events, by seq.
        chains: AiiDA's work chains.
        calculations: what they called.
        finished: lines of Slurm's log of finished jobs, as words.
        queued: names of the jobs Slurm has.
        runs: submission → the words of the run log in each of its calculations' directories.
        tasks: submission of an array → the words of each task's run logs, by its number, in the order of the attempts.
        tables: submission of an array → each task's state in the table that its newest attempt left.
        shown: job → its projection and its timeline; absent where the product knows nothing.
        repairs: kind → how often the sweep told what no hook had told.
    """

    ledger: list[Row]
    events: Mapping[str, list[Row]]
    chains: list[Row]
    calculations: list[Row]
    finished: list[dict[str, str]]
    queued: list[str]
    runs: Mapping[str, list[list[str]]]
    tasks: Mapping[str, Mapping[int, list[list[str]]]]
    tables: Mapping[str, Mapping[int, str]]
    shown: Mapping[str, tuple[Row, list[Row]]]
    repairs: Mapping[str, int]


def gather(paths: LabPaths, lab: Mapping[str, Any], jobs: Collection[Job]) -> Evidence:
    """Read it all; nothing should be doing anything with the jobs any more."""
    with psycopg.connect(lab["postgres"]["dsn"], row_factory=dict_row) as connection:
        ledger = connection.execute(_JOBS, ([job.job_id for job in jobs],)).fetchall()
        submissions = [row["submission_id"] for row in ledger]
        labels = [f"byoc:{submission}" for submission in submissions]
        events = defaultdict(list)
        for row in connection.execute(_EVENTS, (submissions,)):
            events[row["submission_id"]].append(row["data"])
        chains = connection.execute(_CHAINS, (labels,)).fetchall()
        calculations = connection.execute(_CALCULATIONS, (labels,)).fetchall()
        tables = _tables(paths, connection.execute(_TABLES, (FILENAME, labels)).fetchall())
        repairs = _repairs(connection)
    return Evidence(
        ledger=ledger,
        events=events,
        chains=chains,
        calculations=calculations,
        finished=_finished(paths),
        queued=_queued(lab),
        runs=_runs(paths),
        tasks=_tasks(paths),
        tables=tables,
        shown=_shown(lab, ledger),
        repairs=repairs,
    )


def quiet(lab: Mapping[str, Any], jobs: Collection[Job]) -> bool:
    """Whether every job has ended and arrived at the product, and nothing of it is left in AiiDA or Slurm.

    Raises:
        psycopg.OperationalError: the database does not answer.
        subprocess.CalledProcessError: Slurm does not.
    """
    with psycopg.connect(lab["postgres"]["dsn"], row_factory=dict_row) as connection:
        ledger = connection.execute(_JOBS, ([job.job_id for job in jobs],)).fetchall()
        labels = [f"byoc:{row['submission_id']}" for row in ledger]
        processes = [
            row
            for query in (_CHAINS, _CALCULATIONS)
            for row in connection.execute(query, (labels,))
        ]
    arrived = all(
        row["state"] in TERMINAL and (row["quarantine"] or row["acked_seq"] == row["latest_seq"])
        for row in ledger
    )
    ended = arrived and all(row["state"] in ENDED_PROCESS for row in processes)
    return ended and not any(
        row["submission_id"] in name for name in _queued(lab) for row in ledger
    )


def progress(lab: Mapping[str, Any]) -> Any:
    """Something that changes whenever an event of any job is told or delivered.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """
    with psycopg.connect(lab["postgres"]["dsn"]) as connection:
        return connection.execute(
            "SELECT sum(latest_seq), sum(acked_seq) FROM byoc.stream"
        ).fetchone()


def _repairs(connection: psycopg.Connection[Row]) -> dict[str, int]:
    there = connection.execute("SELECT to_regclass('byoc.repair') AS name").fetchone()
    if not there or there["name"] is None:
        return {}
    return {row["kind"]: row["count"] for row in connection.execute("SELECT * FROM byoc.repair")}


def _finished(paths: LabPaths) -> list[dict[str, str]]:
    log = paths.root / "slurm" / "jobcomp.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [
        {key: value for key, _, value in (w.partition("=") for w in line.split())} for line in lines
    ]


def _queued(lab: Mapping[str, Any]) -> list[str]:
    said = subprocess.run(
        [process.executable("squeue"), "--noheader", "--format=%j"],
        env=lab["node"]["environment"],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.split()


def _directories(paths: LabPaths) -> list[tuple[str, Path]]:
    """The submission and the directory of each attempt, earlier ones first."""
    found = []
    for path in (paths.root / "work").rglob("byoc_job.json"):
        specification = json.loads(path.read_text())
        found.append((specification["attempt"], specification["submission_id"], path.parent))
    return [(submission, directory) for _, submission, directory in sorted(found)]


def _tasks(paths: LabPaths) -> dict[str, dict[int, list[list[str]]]]:
    tasks: dict[str, dict[int, list[list[str]]]] = defaultdict(lambda: defaultdict(list))
    for submission, directory in _directories(paths):
        for runs in (directory / ARRAY / "tasks").glob(f"*/*/work/{RUNS}"):
            tasks[submission][int(runs.parents[1].name)].append(runs.read_text().split())
    return tasks


def _runs(paths: LabPaths) -> dict[str, list[list[str]]]:
    logs: dict[str, list[list[str]]] = defaultdict(list)
    for submission, directory in _directories(paths):
        runs = directory / "work" / RUNS
        if runs.exists():
            logs[submission].append(runs.read_text().split())
    return logs


def _tables(paths: LabPaths, found: list[Row]) -> dict[str, dict[int, str]]:
    tables = {}
    with (
        Container(paths.directory("repository") / "container") as repository,
        tempfile.TemporaryDirectory() as place,
    ):
        for row in found:
            file = Path(place, row["submission_id"])
            file.write_bytes(repository.get_object_content(row["content"]))
            with contextlib.closing(sqlite3.connect(file)) as table:
                states = table.execute("SELECT number, state FROM task").fetchall()
            tables[row["submission_id"]] = dict(states)
    return tables


def _shown(lab: Mapping[str, Any], ledger: list[Row]) -> dict[str, tuple[Row, list[Row]]]:
    where = lab["convex"]
    product = Convex(url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"])
    tokens = {tenant["tenant_id"]: f"Bearer {tenant['token']}" for tenant in lab["tenants"]}
    shown = {}
    for row in ledger:
        key, token = {name: row[name] for name in ("tenant_id", "job_id")}, tokens[row["tenant_id"]]
        first = {"paginationOpts": {"numItems": 100, "cursor": None}}
        try:
            projection = call(product, "query", "jobs:get", key, token)
            timeline = call(product, "query", "jobs:timeline", {**key, **first}, token)["page"]
        except RuntimeError:  # not found
            continue
        shown[row["job_id"]] = (projection, timeline)
    return shown
