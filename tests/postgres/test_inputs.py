"""What a job waits for in the ledger: earlier jobs whose outputs it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from aiida_byoc.commands import ledger
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.retention import forget
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import KEY, NOW, cancel, placement, submit, submit_body
from tests.postgres.jobs import accept, report, served, walk

Connect = Callable[[], psycopg.Connection]


def workload(*jobs: str, output: str = "out", outputs: Any = None) -> dict[str, Any]:
    """A workload that reads an output of each of these jobs."""
    inputs = [
        {"name": f"in-{number}", "job": {"job_id": job, "output": output}}
        for number, job in enumerate(jobs)
    ]
    promised = [{"name": "out"}, {"glob": "d/*.csv"}] if outputs is None else outputs
    return {**submit_body()["workload"], "inputs": inputs, "outputs": promised}


def refusal(connection: psycopg.Connection, **changes: Any) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        accept(connection, "later", **changes)
    assert caught.value.kind.name == "input-not-found"
    return caught.value


def launchable(connection: psycopg.Connection, active_jobs: int = 100) -> str | None:
    """The job that the launcher would take now."""
    with connection.transaction(force_rollback=True):
        job = next_job(connection, Limits(active_jobs=active_jobs))
        return job and str(job["job_id"])


def test_a_job_waits_until_the_earlier_one_has_succeeded(connection: psycopg.Connection) -> None:
    first = accept(connection, "first", workload=workload())
    accept(connection, "later", workload=workload("first"))
    for state in ("launched", "queued", "running", "held", "running"):
        report(connection, first, state)
        assert launchable(connection) is None, state

    report(connection, first, "succeeded")

    assert launchable(connection) == "later"


def test_a_job_waits_for_all_of_them(connection: psycopg.Connection) -> None:
    first, second = (accept(connection, job, workload=workload()) for job in ("a", "b"))
    accept(connection, "later", workload=workload("a", "b", "a"))
    walk(connection, first, "launched", "queued", "succeeded")
    report(connection, second, "launched")
    assert launchable(connection) is None

    walk(connection, second, "queued", "succeeded")

    assert launchable(connection) == "later"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_whose_earlier_one_did_not_succeed_is_taken_at_once(
    connection: psycopg.Connection, state: str
) -> None:
    """To be failed: without room, and though another earlier one still runs."""
    first, other = (accept(connection, job, workload=workload()) for job in ("a", "b"))
    walk(connection, other, "launched", "queued")
    accept(connection, "later", workload=workload("a", "b"))
    report(connection, first, "launched")
    assert launchable(connection, active_jobs=1) is None

    report(connection, first, state)

    assert launchable(connection, active_jobs=1) == "later"


def test_others_pass_a_job_that_waits(connection: psycopg.Connection) -> None:
    walk(connection, accept(connection, "first", workload=workload()), "launched")
    accept(connection, "later", workload=workload("first"))
    accept(connection, "other")

    assert launchable(connection) == "other"


def test_what_nobody_has_is_refused_by_name_and_nothing_is_stored(
    connection: psycopg.Connection,
) -> None:
    accept(connection, "first", workload=workload())

    problem = refusal(connection, workload=workload("first", "nobody"))

    (error,) = problem.errors
    assert error.field == "workload.inputs.1.job.job_id"
    assert error.remedy is not None
    assert "nobody" not in problem.problem().model_dump_json()
    for table in ("job WHERE job_id = 'later'", "depends", "input_fetch"):
        assert connection.execute(f"SELECT FROM byoc.{table}").fetchall() == []


def test_a_refused_job_may_come_again_corrected(connection: psycopg.Connection) -> None:
    refusal(connection, workload=workload("first"))
    accept(connection, "first", workload=workload())

    accept(connection, "later", workload=workload("first"))


def test_i23_a_job_of_somebody_else_is_nobodys(connection: psycopg.Connection) -> None:
    """Of another workspace, of another tenant, only cancelled, the job itself: word for word the same."""
    accept(connection, "elsewhere", workload=workload(), workspace_id="other")
    accept(connection, "foreign", workload=workload(), tenant_id="globex")
    ledger.cancel(connection, cancel(job_id="buried"), serve=served, now=NOW)

    problems = {
        refusal(connection, workload=workload(job)).problem().model_dump_json()
        for job in ("elsewhere", "foreign", "buried", "later", "nobody")
    }

    assert len(problems) == 1


@pytest.mark.parametrize("output", ["out", "d/a.csv"])
def test_an_output_is_promised_by_name_or_pattern(
    connection: psycopg.Connection, output: str
) -> None:
    accept(connection, "first", workload=workload())

    accept(connection, "later", workload=workload("first", output=output))


@pytest.mark.parametrize("output", ["other", "d", "d/e/a.csv", "d/a.txt", "d/.csv"])
def test_an_output_that_nobody_promised_is_refused(
    connection: psycopg.Connection, output: str
) -> None:
    accept(connection, "first", workload=workload())

    (error,) = refusal(connection, workload=workload("first", output=output)).errors

    assert error.field == "workload.inputs.0.job.output"


def test_a_forgotten_job_may_have_promised_anything(connection: psycopg.Connection) -> None:
    """Whether it left it is seen at the launch."""
    first = accept(connection, "first", workload=workload())
    walk(connection, first, "launched", "queued", "succeeded")
    connection.execute("UPDATE byoc.stream SET acked_seq = latest_seq")
    connection.execute("UPDATE byoc.job SET accepted_at = now() - interval '9 days'")
    connection.execute("UPDATE byoc.event SET occurred_at = now() - interval '9 days'")
    forget(connection, 2)

    accept(connection, "later", workload=workload("first", output="anything"))

    assert launchable(connection) == "later"


def test_a_replay_is_answered_before_its_inputs_are_looked_for(
    connection: psycopg.Connection,
) -> None:
    accept(connection, "first", workload=workload())
    command = submit(job_id="later", workload=workload("first"))
    given: dict[str, Any] = {"place": lambda _: placement(), "now": NOW}
    acceptance, _ = ledger.accept(connection, command, KEY, **given)
    connection.execute("UPDATE byoc.job SET workspace_id = 'other' WHERE job_id = 'first'")

    assert ledger.accept(connection, command, KEY, **given) == (acceptance, True)


def test_a_job_that_waits_can_be_cancelled(connection: psycopg.Connection) -> None:
    accept(connection, "first", workload=workload())
    later = accept(connection, "later", workload=workload("first"))

    ledger.cancel(connection, cancel(job_id="later"), serve=served, now=NOW)

    row = connection.execute("SELECT state FROM byoc.job WHERE submission_id = %s", (later,))
    assert row.fetchone() == ("cancelled",)
    assert launchable(connection) == "first"
