"""The tasks of an array and what became of each: one SQLite file, in provenance as a `SinglefileData`.

An attempt begins with the table that the one before it left, runs the tasks of it that have not succeeded, and leaves
another.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiida_byoc.contracts.array import ArrayTasks
from aiida_byoc.contracts.events import MAX_FAILURES

__all__ = ["FILENAME", "Table", "created", "opened"]

FILENAME = "tasks.sqlite"

_SCHEMA = """
PRAGMA user_version = 2;
CREATE TABLE task (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    parameters TEXT NOT NULL,       -- JSON array, in the order of the columns, then id and number
    state TEXT NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'succeeded', 'failed', 'interrupted', 'cancelled')),
    attempt INTEGER,
    exit_code INTEGER,
    started_at REAL,                -- seconds since 1970, by the compute node's clock
    ended_at REAL,
    cpu_seconds REAL,
    peak_rss_mib REAL,
    node TEXT,
    message TEXT,
    outputs TEXT                    -- JSON array of name, size, sha256
);
CREATE INDEX task_state ON task (state, number);
"""
_RESULT = """
UPDATE task SET state = :state, attempt = :attempt, exit_code = :exit_code, started_at = :started_at,
    ended_at = :ended_at, cpu_seconds = :cpu_seconds, peak_rss_mib = :peak_rss_mib, node = :node,
    message = :message, outputs = :outputs
WHERE number = :number AND id = :id AND state != 'succeeded'
"""
_UNENDED = """
UPDATE task SET state = 'interrupted', attempt = ?, exit_code = NULL, started_at = NULL, ended_at = NULL,
    cpu_seconds = NULL, peak_rss_mib = NULL, node = NULL, message = NULL, outputs = NULL
WHERE state = 'waiting'
"""
"""What is known of it is of an earlier attempt, and this row says which one it is of."""
_CANCEL = """
UPDATE task SET state = 'cancelled', message = NULL
WHERE number BETWEEN ? AND ? AND state NOT IN ('succeeded', 'cancelled')
"""
_SETTLED = "('succeeded', 'cancelled')"
"""States of tasks that no attempt runs (again)."""
_FROM_1 = """
ALTER TABLE task RENAME TO before;
DROP INDEX task_state;
{schema}
INSERT INTO task SELECT * FROM before;
DROP TABLE before;
"""
"""Version 1 knew no cancelled tasks."""


class Table:
    """An open table.

    Args:
        connection: to its file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.row_factory = sqlite3.Row

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM task").fetchone()[0])

    def to_run(self) -> Iterator[tuple[int, str, list[str]]]:
        """Number, id and values of the tasks that have not succeeded and are wanted."""
        rows = self._connection.execute(
            f"SELECT number, id, parameters FROM task WHERE state NOT IN {_SETTLED} ORDER BY number"  # noqa: S608
        )
        for row in rows:
            yield row["number"], row["id"], json.loads(row["parameters"])

    def counts(self) -> dict[str, int]:
        """How many tasks there are in each state."""
        found = dict.fromkeys(("waiting", "succeeded", "failed", "interrupted", "cancelled"), 0)
        found.update(
            self._connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()
        )
        return found

    def begin(self) -> None:
        """What has not succeeded and is wanted waits again."""
        self._connection.execute(
            f"UPDATE task SET state = 'waiting' WHERE state NOT IN {_SETTLED}"  # noqa: S608
        )

    def cancel(self, ranges: Iterable[tuple[int, int]], *, unended: bool = False) -> int:
        """Tasks of these numbers that have not succeeded are not wanted any more; how many that changes.

        Args:
            unended: only those that an attempt did not end.
        """
        query = f"{_CANCEL} AND state IN ('waiting', 'interrupted')" if unended else _CANCEL
        return sum(self._connection.execute(query, each).rowcount for each in ranges)

    def take(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Write results down, as `runtimes/in_job` records them; a task that has succeeded stays as it is."""
        for result in results:
            outputs = [
                {name: each[name] for name in ("name", "size", "sha256")}
                for each in result["outputs"]
            ]
            self._connection.execute(_RESULT, {**result, "outputs": json.dumps(outputs)})

    def close_attempt(self, attempt: int) -> None:
        """What waits still was not ended by this attempt."""
        self._connection.execute(_UNENDED, (attempt,))
        self._connection.commit()

    def failures(self, most: int = MAX_FAILURES) -> list[dict[str, Any]]:
        """The first tasks that did not succeed: those that failed before those that did not end."""
        rows = self._connection.execute(
            f"SELECT number, id, state, exit_code, message FROM task WHERE state NOT IN {_SETTLED}"  # noqa: S608
            " ORDER BY state != 'failed', number LIMIT ?",
            (most,),
        )
        return [{name: row[name] for name in row.keys() if row[name] is not None} for row in rows]  # noqa: SIM118

    def usage(self) -> dict[str, float]:
        """Of all tasks: their CPU seconds in sum, and the largest process."""
        seconds, mib = self._connection.execute(
            "SELECT coalesce(sum(cpu_seconds), 0), coalesce(max(peak_rss_mib), 0) FROM task"
        ).fetchone()
        return {"cpu_seconds": round(seconds, 3), "peak_rss_mib": mib}

    def mean_seconds(self) -> float | None:
        """How long a task took that succeeded; `None` while none has."""
        mean = self._connection.execute(
            "SELECT avg(ended_at - started_at) FROM task WHERE state = 'succeeded'"
        ).fetchone()[0]
        return None if mean is None else max(float(mean), 0.001)

    def worst_exit_code(self) -> int:
        """The largest exit status of the tasks that are wanted; at least 1 if one did not succeed."""
        code, failed = self._connection.execute(
            "SELECT coalesce(max(exit_code), 0), coalesce(max(state != 'succeeded'), 0) FROM task"
            " WHERE state != 'cancelled'"
        ).fetchone()
        return max(int(code), int(failed))

    def page(self, *, only_failed: bool, after: int, most: int) -> list[dict[str, Any]]:
        """Rows from the number after `after` on, as JSON has them."""
        rows = self._connection.execute(
            f"SELECT * FROM task WHERE number > ? AND (NOT ? OR state NOT IN {_SETTLED})"  # noqa: S608
            " ORDER BY number LIMIT ?",
            (after, only_failed, most),
        )
        return [
            {
                **dict(row),
                "parameters": json.loads(row["parameters"])[:-2],
                "outputs": json.loads(row["outputs"] or "[]"),
            }
            for row in rows
        ]


@contextlib.contextmanager
def created(path: Path, tasks: ArrayTasks) -> Iterator[Table]:
    """A new table of these tasks."""
    with opened(path) as table:
        table._connection.executescript(_SCHEMA)
        table._connection.executemany(
            "INSERT INTO task (number, id, parameters) VALUES (?, ?, ?)",
            ((number, task_id, json.dumps(values)) for number, task_id, values in tasks.tasks()),
        )
        yield table


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The table in a file; changes are written when the block ends well."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = MEMORY")
        if connection.execute("PRAGMA user_version").fetchone() == (1,):
            connection.executescript(_FROM_1.format(schema=_SCHEMA))
        with connection:
            yield Table(connection)
    finally:
        connection.close()
