"""Canaries: values that nobody but their owner may see, searched for in all that the stack writes and shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lab.paths import LabPaths
from tests.labs import SIGNED_TOKEN, Client
from tests.security.canaries import GIVEN, Seen

# Where what a job was given may be, and why.
TABLES = {
    "byoc.job": "the ledger: the command as it was accepted",
    "public.db_dbnode": "provenance: the inputs of the job's processes, see DATA",
}
DATA = {
    "data.core.dict.Dict.": "the command, input of the work chain, and what runs, input of the calculation",
}
FILES = {
    "repository/": "AiiDA's repository: the inputs in provenance",
    "work/": "the job's own directory, which its user alone can read",
}
# Where what opens something may be.
KEPT = {
    "keys/": "the private keys themselves",
    "postgres-password": "the password of the database itself",
    "lab.json": "what the lab tells its tests",
    "aiida/.aiida/config.json": "AiiDA's own configuration and its backups: how it reaches the database",
}


@pytest.fixture(scope="module")
def secrets(lab: dict[str, Any], lab_paths: LabPaths) -> dict[str, str]:
    """What opens something in this lab, by name."""
    keys = {
        f"key {file.name}": max(file.read_text().splitlines(), key=len)
        for file in sorted((lab_paths.root / "keys").iterdir())
    }
    tokens = {f"token of {each['tenant_id']}": each["token"] for each in lab["tenants"]}
    database = psycopg.conninfo.conninfo_to_dict(lab["postgres"]["dsn"])["password"]
    opens = {"admin key": lab["convex"]["admin_key"], "password of the database": str(database)}
    return {**keys, **tokens, **opens}


def found(text: str, wanted: dict[str, str]) -> list[str]:
    """The names of those that stand in the text; a token of whatever kind is one more."""
    names = [name for name, value in wanted.items() if value in text]
    return [*names, *(["a token"] if SIGNED_TOKEN.search(text) else [])]


def test_no_command_line_shows_a_secret(seen: Seen, secrets: dict[str, str]) -> None:
    """Everybody on a machine may read all command lines."""
    assert "sleep 8" in seen.processes
    assert found(seen.processes, seen.canaries | secrets) == []


def test_the_scheduler_shows_no_secret(seen: Seen, secrets: dict[str, str]) -> None:
    """Neither its jobs nor their scripts, which every user of the cluster may see where nothing is hidden."""
    assert "#SBATCH" in seen.scheduler
    assert found(seen.scheduler, seen.canaries | secrets) == []


def test_no_problem_repeats_a_value(seen: Seen) -> None:
    """Not where it was refused, and not what else the command held."""
    assert len(seen.problems.splitlines()) > 10
    assert found(seen.problems, seen.canaries) == []


def test_no_log_holds_a_secret(
    seen: Seen, secrets: dict[str, str], lab: dict[str, Any], lab_paths: LabPaths
) -> None:
    """Of the adapter, the product, the agent, AiiDA's workers, Slurm, Postgres."""
    logs = [file for file in lab_paths.logs.rglob("*") if file.is_file()]
    logs += [Path(lab["node"]["daemon_log"])]
    logs += [file for place in lab_paths.places() for file in place.rglob("*.log")]
    texts = {str(log): log.read_text(errors="replace") for log in {*logs}}

    assert any(seen.job_id in text for text in texts.values())
    held = {log: found(text, seen.canaries | secrets) for log, text in texts.items()}
    assert {log: names for log, names in held.items() if names} == {}


def test_the_product_is_told_no_secret(seen: Seen, acme: Client) -> None:
    """State, timeline and lists as the tenant's own user sees them."""
    page = {"paginationOpts": {"numItems": 100, "cursor": None}}
    shown = [
        acme.projection(seen.job_id),
        acme.query("jobs:timeline", job_id=seen.job_id, **page),
        acme.query("jobs:timeline", job_id=seen.gone, **page),
        acme.query("jobs:list", **page),
        acme.query("nodes:list"),
        acme.http.get(f"{acme.jobs}/{seen.job_id}").json(),
    ]

    assert seen.job_id in str(shown)
    assert found(json.dumps(shown), seen.canaries) == []


def test_the_nodes_database_holds_a_value_where_it_must_and_nowhere_else(
    seen: Seen, secrets: dict[str, str], database: psycopg.Connection
) -> None:
    """Every row of every table: AiiDA's attributes and extras, events, outbox, broker, ledger."""
    tables = database.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    held: dict[str, list[str]] = {}
    for schema, table in tables:
        query = sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text LIKE %s").format(
            sql.Identifier(schema, table)
        )
        for name, value in {**seen.canaries, **secrets}.items():
            row = database.execute(query, (f"%{value}%",)).fetchone()
            if row and row[0]:
                held.setdefault(f"{schema}.{table}", []).append(name)
        tokens = sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text ~ %s").format(
            sql.Identifier(schema, table)
        )
        assert database.execute(tokens, (SIGNED_TOKEN.pattern,)).fetchone() == (0,), table

    kinds = database.execute(
        "SELECT DISTINCT node_type FROM db_dbnode AS t WHERE t::text LIKE %s OR t::text LIKE %s",
        (f"%{seen.canaries['env']}%", f"%{seen.canaries['input']}%"),
    ).fetchall()

    assert len(tables) > 20
    assert held == {table: [*GIVEN] for table in TABLES}
    assert {kind for (kind,) in kinds} == DATA.keys()


def test_a_file_holds_a_value_where_it_must_and_nowhere_else(
    seen: Seen, secrets: dict[str, str], lab_paths: LabPaths
) -> None:
    """Every file of the stack but Postgres's own, whose rows are looked at above."""
    files = [
        (file, file.relative_to(place))
        for place in lab_paths.places()
        for file in place.rglob("*")
        if file.is_file() and not file.is_symlink()
    ]
    held: set[tuple[str, str]] = set()
    for file, name in files:
        if "postgres" not in name.parts:
            content = file.read_bytes()
            for kind, value in {**seen.canaries, **secrets}.items():
                if value.encode() in content:
                    held.add((str(name), kind))

    misplaced = {
        (name, kind)
        for name, kind in held
        if not name.startswith(tuple(FILES if kind in seen.canaries else KEPT))
    }
    assert misplaced == set()
    assert {Path(name).parts[0] for name, _ in held} >= {"repository", "keys", "lab.json", "aiida"}
