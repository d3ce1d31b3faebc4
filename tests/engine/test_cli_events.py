"""`verdi data byoc events …`: what an operator types, and what is answered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aiida_byoc.cli import byoc
from aiida_byoc.cli.common import settings_path
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events.relay import deliver
from tests.postgres.jobs import accept, walk

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run a command of `verdi data byoc events`."""

    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(byoc, ["events", *arguments], catch_exceptions=False, **options)

    return invoke


@pytest.fixture
def job(node: Any) -> str:
    """A job that ended, and whose second event the product refused; its name is its own."""
    name = f"job-{uuid.uuid4().hex[:12]}"
    submission = accept(node.connection, name)
    walk(node.connection, submission, "cancelled")

    class Refusing:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            wanted = {each["data"]["submission_id"]: each["data"]["seq"] + 1 for each in batch}
            refused = {"submission_id": submission, "seq": 2, "code": "terminal", "message": "no"}
            return Acknowledgement.model_validate(
                {"next_seq": {**wanted, submission: 2}, "quarantined": [refused]}
            )

    while deliver(node.connection, Refusing()):
        pass
    return name


def deliveries(run: Run, job: str) -> list[str]:
    rows = json.loads(run("list", "--job", job, "--json").output)
    return [row["delivery"] for row in rows]


def test_a_refused_event_is_listed_retried_and_dropped(run: Run, job: str) -> None:
    assert deliveries(run, job) == ["delivered", "quarantined"]
    [found] = [
        row
        for row in json.loads(run("quarantine", "list", "--json").output)
        if row["job_id"] == job
    ]
    assert (found["status"], found["seq"], found["code"]) == ("quarantined", 2, "terminal")

    refused = run(
        "quarantine", "drop", "--job", job, "--tenant", "acme", "--reason", "r", input="n\n"
    )
    assert refused.exit_code == 1
    assert deliveries(run, job) == ["delivered", "quarantined"]
    dropped = run("quarantine", "drop", "--job", job, "--tenant", "acme", "--reason", "r", "--yes")
    assert dropped.output == f"event 2 of {job} is dropped; the others go on\n"
    assert deliveries(run, job) == ["delivered", "dropped"]
    again = run("quarantine", "drop", "--job", job, "--tenant", "acme", "--reason", "r", "--yes")
    assert again.exit_code == 1
    assert f"job {job} of tenant acme is not quarantined" in again.output


def test_a_retry_says_how_many_jobs_go_on(run: Run, job: str) -> None:
    assert run("quarantine", "retry", "--job", job, "--tenant", "acme").output == "1 job(s) go on\n"
    assert deliveries(run, job) == ["delivered", "waiting"]
    assert run("quarantine", "retry", "--all").exit_code == 0


def test_a_replay_says_what_is_sent_once_more(run: Run, job: str) -> None:
    result = run("replay", "--job", job, "--tenant", "acme")

    assert "1 event(s) of 1 job(s) are sent once more" in result.output
    assert "1 of the jobs are quarantined" in result.output
    assert deliveries(run, job) == ["quarantined", "quarantined"]
    assert run("replay", "--since", "2999-01-01T00:00:00Z").output.startswith("0 event(s) of 0")


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["replay"], "name one of"),
        (["replay", "--all", "--since", "2026-01-01T00:00:00Z"], "name one of"),
        (["replay", "--job", "j"], "name one of"),
        (["replay", "--since", "yesterday"], "--since"),
        (["replay", "--since", "2026-01-01T00:00:00"], "needs an offset"),
        (["quarantine", "retry"], "name --tenant"),
        (["quarantine", "retry", "--job", "j"], "name --tenant"),
        (["quarantine", "retry", "--all", "--tenant", "t"], "name --tenant"),
    ],
)
def test_a_request_that_could_mean_more_than_one_thing_is_refused(
    run: Run, words: list[str], sentence: str
) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert sentence in result.output


def test_the_epoch_is_shown_and_renewed(run: Run, job: str) -> None:
    assert run("epoch").stdout.strip() in run("epoch", "--history").stdout, job
    first, second = run("epoch").stdout.strip(), run("epoch", "--new").stdout.strip()

    assert first != second
    assert run("epoch").stdout.strip() == second
    assert int(second, 16) >= 0
    assert len(second) == 16


def test_the_status_says_why_nothing_is_delivered(node: Any, profile: Any) -> None:
    path = settings_path(profile.name)
    node.settings.save(path)
    try:
        node.connection.execute(
            "INSERT INTO byoc.relay_trouble (problem, message) VALUES ('epoch-mismatch', 'HTTP 409: no')"
        )
        troubled = CliRunner().invoke(byoc, ["status"], catch_exceptions=False)
        node.connection.execute("DELETE FROM byoc.relay_trouble")
        well = CliRunner().invoke(byoc, ["status"], catch_exceptions=False)
    finally:
        path.unlink()

    assert "relay     epoch-mismatch since 20" in troubled.output
    assert "relay     ok" in well.output
