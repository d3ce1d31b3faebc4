"""AiiDA's tables as far as a receipt reads them, and the provenance of a job as AiiDA would have left it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

__all__ = ["Provenance", "files", "sha256"]

_TABLES = """
CREATE TABLE db_dbcomputer (id integer PRIMARY KEY, label text NOT NULL);
CREATE TABLE db_dbnode (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uuid uuid NOT NULL UNIQUE, node_type varchar(255) NOT NULL,
    process_type varchar(255), label varchar(255) NOT NULL DEFAULT '',
    attributes jsonb, repository_metadata jsonb NOT NULL,
    dbcomputer_id integer REFERENCES db_dbcomputer
);
CREATE TABLE db_dblink (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, input_id integer NOT NULL REFERENCES db_dbnode,
    output_id integer NOT NULL REFERENCES db_dbnode, label varchar(255) NOT NULL, type varchar(255) NOT NULL
);
INSERT INTO db_dbcomputer VALUES (1, 'cluster');
"""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def files(**contents: str) -> dict[str, Any]:
    """The metadata of AiiDA's repository for these files; `__` in a name is a slash."""
    tree: dict[str, Any] = {}
    for name, content in contents.items():
        *folders, last = name.split("__")
        place = tree
        for folder in folders:
            place = place.setdefault("o", {}).setdefault(folder, {})
        place.setdefault("o", {})[last] = {"k": sha256(content)}
    return tree


class Provenance:
    """Writes nodes and links."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        connection.execute(_TABLES)

    def node(
        self,
        kind: str,
        attributes: dict[str, Any] | None = None,
        *,
        process: str | None = None,
        repository: dict[str, Any] | None = None,
    ) -> int:
        """A node; its pk."""
        row = self._connection.execute(
            "INSERT INTO db_dbnode (uuid, node_type, process_type, attributes, repository_metadata, dbcomputer_id)"
            " VALUES (%s, %s, %s, %s, %s, 1) RETURNING id",
            (uuid.uuid4(), kind, process, Jsonb(attributes or {}), Jsonb(repository or {})),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def link(self, source: int, target: int, kind: str, label: str) -> None:
        self._connection.execute(
            "INSERT INTO db_dblink (input_id, output_id, type, label) VALUES (%s, %s, %s, %s)",
            (source, target, kind, label),
        )

    def chain(
        self,
        submission: str,
        command: dict[str, Any],
        process_type: str = "aiida.workflows:byoc.job",
        **attributes: Any,
    ) -> int:
        """The work chain of a job, which the ledger knows from now on."""
        noted = {"version": {"core": "2.9.4", "plugin": "0.2.0"}, **attributes}
        process = self.node("process.workflow.workchain.", noted, process=process_type)
        self._connection.execute(
            "UPDATE byoc.job SET process_pk = %s, process_uuid = (SELECT uuid FROM db_dbnode WHERE id = %s)"
            " WHERE submission_id = %s",
            (process, process, submission),
        )
        given = {"command": command, "placement": {"runtime": "bubblewrap"}}
        for label, content in given.items():
            self.link(self.node("data.core.dict.", content), process, "input_work", label)
        return process

    def attempt(self, chain: int, number: int, attributes: dict[str, Any]) -> int:
        """An attempt of a chain, with the files that its job got."""
        noted = {
            "version": {"core": "2.9.4", "plugin": "0.2.0"},
            "checkpoints": "long",
            **attributes,
        }
        process = self.node(
            "process.calculation.calcjob.CalcJobNode.",
            noted,
            process="aiida.calculations:byoc.container",
            repository=files(
                **{
                    "_aiidasubmit.sh": f"script {number}",
                    "byoc_job.json": f"specification {number}",
                    "byoc_in_job__cell.py": "cell",
                    "byoc_in_job__streams.py": "streams",
                }
            ),
        )
        self.link(chain, process, "call_calc", f"iteration_{number:02d}")
        return process

    def given(
        self, attempt: int, label: str, kind: str = "data.core.folder.", **contents: str
    ) -> int:
        """An input of an attempt that holds files."""
        node = self.node(kind, repository=files(**contents))
        self.link(node, attempt, "input_calc", label)
        return node

    def left(
        self, attempt: int, label: str, attributes: dict[str, Any] | None = None, **contents: str
    ) -> int:
        """An output of an attempt."""
        node = self.node("data.core.folder.", attributes, repository=files(**contents))
        self.link(attempt, node, "create", label)
        return node
