"""`verdi data byoc doctor`: every part of the node is examined, whatever else is down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aiida_byoc.cli import byoc, checks, parts
from aiida_byoc.cli.common import settings_path
from aiida_byoc.cli.findings import REMEDIES
from aiida_byoc.database.connection import connect
from tests.builders import POLICY
from tests.postgres.jobs import report


@pytest.fixture
def run(node: Any, profile: Any, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The command, on a node that is set up; no agent, daemon or adapter runs."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    path = settings_path(profile.name)
    node.settings.model_copy(update={"policy_file": policy}).save(path)
    yield lambda *options: CliRunner().invoke(byoc, ["doctor", *options], catch_exceptions=False)
    path.unlink()


def test_a_node_of_which_half_is_down_is_examined_all_the_same(run: Callable[..., Result]) -> None:
    """Every part is asked, and each that is away is named with what helps; exit status 1."""
    result = run("--json")

    assert result.exit_code == 1
    told = json.loads(result.stdout)["parts"]
    sound = {name for name, wrong in told.items() if wrong is None}
    assert {"database", "clock", "slurm", "transport", "broker", "relay", "runtime"} <= sound
    for name, helps in {
        "agent": "agent run",
        "launcher": "its log",
        "reader": "its log",
        "workers": "verdi daemon start",
        "adapter": "cannot be reached",
        "profile": "init",
    }.items():
        assert helps in told[name]


def test_the_table_names_job_and_command(run: Callable[..., Result], node: Any) -> None:
    submission = node.accept()
    node.launch(submission)
    report(node.connection, submission, "held")
    node.connection.execute(
        "UPDATE byoc.event SET occurred_at = now() - interval '1 hour' WHERE submission_id = %s",
        (submission,),
    )
    job = node.events(submission)[0]["job_id"]

    result = run()

    assert result.exit_code == 1
    (line,) = [
        line for line in result.output.splitlines() if job in line and "undelivered" not in line
    ]
    assert "the transport is down" in line
    assert "verdi process report" in line
    assert "slurm       ok" in result.output


def test_without_the_database_the_rest_is_examined_all_the_same(
    run: Callable[..., Result], profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says of each part whether it can be told; the report is JSON as ever, and each finding has its remedy."""
    away = {**profile.storage_config, "database_port": 1}
    monkeypatch.setattr(
        import_module("aiida_byoc.cli.doctor"), "profile_storage", lambda: (profile.name, away)
    )

    result, table = run("--json"), run()

    assert (result.exit_code, table.exit_code) == (1, 1)
    report = json.loads(result.stdout)
    told = report["parts"]
    assert "the profile's database does not answer: connection" in told["database"]
    assert (told["slurm"], told["runtime"], report["jobs"]) == (None, None, None)
    for name in ("tables", "witness", "agent", "workers", "relay", "transport"):
        assert "cannot be told while the profile's database does not answer" in told[name]
    found = {each["part"]: each for each in report["findings"]}
    assert found.keys() == {name for name, wrong in told.items() if wrong}
    assert all(each["wrong"] and each["remedy"] for each in found.values())
    assert found["database"]["remedy"] == "start PostgreSQL, and see its log"
    assert "slurm       ok" in table.output
    assert "jobs cannot be examined" in table.output


def test_without_tables_of_this_version_the_rest_is_examined_all_the_same(node: Any) -> None:
    with node.connection.transaction(force_rollback=True):
        node.connection.execute(
            "DELETE FROM byoc.migration WHERE version = (SELECT max(version) FROM byoc.migration)"
        )
        asked = parts.parts(node.connection, node.settings, "byoc.postgres")
        told = {name: parts.ask(asked[name]) for name in ("database", "tables", "relay", "slurm")}

    assert "this package needs" in (told["tables"] or "")
    assert "cannot be told without the tables" in (told["relay"] or "")
    assert (told["database"], told["slurm"]) == (None, None)


def test_there_is_a_remedy_for_every_part(node: Any) -> None:
    asked = parts.parts(node.connection, node.settings, "byoc.postgres")

    assert asked.keys() == REMEDIES.keys()


def test_what_the_policy_names_and_the_site_has_not_is_named(node: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f"{POLICY}pull = false\n")

    told = asked_of(node, node.settings.model_copy(update={"policy_file": policy}), "policy") or ""

    assert "queues.main.partition is no partition of this cluster; use one of: high, main" in told
    assert "which `verdi data byoc policy check` names" in told


def test_a_database_that_may_lose_commits_is_named(profile: Any, node: Any) -> None:
    with connect(profile.storage_config, application="test") as connection:
        asked = parts.parts(connection, node.settings, "byoc.postgres")
        assert parts.ask(asked["database"]) is None
        connection.execute("SET synchronous_commit = off")

        assert "synchronous_commit = off" in (parts.ask(asked["database"]) or "")


def test_a_clock_that_is_off_is_named(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("aiida_byoc.cli.parts.time.time", lambda: now - 3600)

    wrong = parts.ask(parts.parts(node.connection, node.settings, "byoc.postgres")["clock"])

    assert "disagree by 3600 s" in (wrong or "")


def test_a_slurm_that_forgets_soon_is_named(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        "#!/bin/sh\necho 'Slurmctld(primary) at here is UP'\necho 'MinJobAge               = 10 sec'\n"
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    wrong = parts.ask(parts.parts(node.connection, node.settings, "byoc.postgres")["slurm"])

    assert "forgets ended jobs after 10 s" in (wrong or "")


@pytest.fixture
def podman_node(node: Any, tmp_path: Path) -> Any:
    """The settings of a node whose policy wants podman."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace('runtime = "bubblewrap"', 'runtime = "podman"'))
    return node.settings.model_copy(update={"policy_file": policy})


def asked_of(node: Any, settings: Any, part: str) -> str | None:
    return parts.ask(parts.parts(node.connection, settings, "byoc.postgres")[part])


@pytest.mark.usefixtures("cluster")
def test_podman_is_tried_and_its_epilog_found(node: Any, podman_node: Any) -> None:
    assert asked_of(node, podman_node, "runtime") is None
    assert asked_of(node, podman_node, "epilog") is None


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "has no Epilog"),
        ("#!/bin/sh\nrm -rf --one-file-system /scratch/$SLURM_JOB_ID\n", "does not call ours"),
        ("#!/bin/sh\n/etc/slurm/epilog-of-aiida-byoc.sh\n", None),
        (checks.EPILOG.read_text() + "\n# changed here\n", "of another version"),
        ("missing", "cannot be read on this machine"),
    ],
)
def test_an_epilog_that_does_not_help_podman_is_named(
    node: Any,
    podman_node: Any,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    wrong: str | None,
) -> None:
    tmp_path = podman_node.policy_file.parent
    epilog, name = tmp_path / "epilog", "(null)"
    if content is not None:
        name = str(epilog)
    if content not in {None, "missing"}:
        epilog.write_text(str(content))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho 'Epilog                  = {name}'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    told = asked_of(node, podman_node, "epilog")

    assert (told is None) == (wrong is None)
    assert (wrong or "") in (told or "")


def test_a_runtime_that_is_not_there_is_named_with_where_it_comes_from(
    node: Any, podman_node: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    told = asked_of(node, podman_node, "runtime") or ""

    assert "podman, runc, catatonit missing" in told
    assert "Debian: podman" in told


@pytest.mark.usefixtures("run")
def test_operators_see_which_runtimes_work_and_get_the_epilog() -> None:
    shown = CliRunner().invoke(byoc, ["node", "runtimes", "--json"], catch_exceptions=False)
    printed = CliRunner().invoke(byoc, ["node", "epilog"], catch_exceptions=False)

    states = {row["runtime"]: row["state"] for row in json.loads(shown.stdout)}
    assert [states[name] for name in ("bubblewrap", "charliecloud", "podman")] == ["works"] * 3
    assert printed.stdout == checks.EPILOG.read_text()


def test_the_other_parts_are_named_too(node: Any) -> None:
    """A broker that forgets, workers of which none lives, an epoch that the product does not know."""
    node.connection.execute(
        "INSERT INTO byoc.relay_trouble (problem, message) VALUES ('epoch-mismatch', 'new')"
    )
    asked = parts.parts(node.connection, node.settings, "core.zeromq")

    assert "--broker byoc.postgres" in (parts.ask(asked["broker"]) or "")
    assert "docs/restore.md" in (parts.ask(asked["relay"]) or "")
    node.connection.execute(
        "INSERT INTO byoc.worker (worker_id, host, boot_id, pid, pid_started, lease_until)"
        " VALUES (gen_random_uuid(), 'h', 'b', 1, 1, now() - interval '1 minute')"
    )
    workers = parts.parts(node.connection, node.settings, "byoc.postgres")["workers"]
    assert "none is alive" in (parts.ask(workers) or "")
    node.connection.execute("UPDATE byoc.worker SET lease_until = now() + interval '1 minute'")
    assert parts.ask(workers) is None
    node.connection.execute("TRUNCATE byoc.worker, byoc.task, byoc.relay_trouble")
