"""`verdi data byoc doctor`: each job that stands still is named, with its cause and the command that helps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from aiida_byoc.cli.job_facts import Situation
from aiida_byoc.cli.overdue import EXPECTED, Finding, overdue
from aiida_byoc.commands.housekeeping import Limits
from tests.postgres.jobs import report

SOUND = Situation(limits=Limits(), max_plays=3, has_agent=True, has_tasks=False)
WITH_TASKS = replace(SOUND, has_tasks=True)
WORKER = "11111111-1111-4111-8111-111111111111"
BY_AIIDA = "Pausing after failed transport task: submit_calculation failed 5 times consecutively"


@dataclass(frozen=True)
class Case:
    """How a job comes to stand still, and what is to be said of it.

    Attributes:
        reports: states that are told after the launch, with facts.
        edits: statements for the job; `%(job)s` is its submission, `%(pk)s` its work chain.
        after: how long it must have been so, in seconds, before it is worth a word.
    """

    cause: str
    command: str
    after: int
    reports: tuple[tuple[str, dict[str, Any]], ...] = ()
    edits: tuple[str, ...] = ()
    situation: Situation = SOUND
    is_launched: bool = True


def pause(status: str) -> str:
    attributes = json.dumps({"paused": True, "process_status": status})
    return f"UPDATE db_dbnode SET attributes = attributes || '{attributes}' WHERE id = %(pk)s"  # noqa: S608


def task(owner: str, not_before: str) -> str:
    return (
        "INSERT INTO byoc.task (process_pk, body, owner, not_before, attempts)"  # noqa: S608
        f" VALUES (%(pk)s, '{{}}', {owner}, now() + interval '{not_before}', 4)"
    )


DEAD = (
    "INSERT INTO byoc.worker (worker_id, host, boot_id, pid, pid_started, lease_until)"  # noqa: S608
    f" VALUES ('{WORKER}', 'h', 'b', 1, 1, now() - interval '1 minute')"
)
PLAYED = "INSERT INTO byoc.play (process_pk, stage, submission_id, plays) VALUES (%(pk)s, '', %(job)s, 3)"
WANTED = """
UPDATE byoc.job SET placement = placement || '{"pull": {"repository": "registry.example/a"}}'
WHERE submission_id = %(job)s
"""
PULL = """
INSERT INTO byoc.image_pull (digest, repository, max_mib, message)
SELECT placement ->> 'image_digest', 'registry.example/a', 1, 'HTTP 503' FROM byoc.job WHERE submission_id = %(job)s
ON CONFLICT DO NOTHING
"""
FETCH = """
INSERT INTO byoc.input_fetch (submission_id, sha256, url, message) VALUES (%(job)s, 'a', 'https://a/', 'HTTP 503')
ON CONFLICT DO NOTHING
"""
DEPENDS = """
INSERT INTO byoc.depends SELECT %(job)s, submission_id FROM byoc.job WHERE state = 'launched' LIMIT 1
ON CONFLICT DO NOTHING
"""
QUEUED = ("queued", {"scheduler": {"job_id": "77", "wait_reason": "Priority"}})
HOPELESS = ("queued", {"scheduler": {"job_id": "77", "wait_reason": "PartitionTimeLimit"}})
HELD: tuple[str, dict[str, Any]] = ("held", {})

CASES = {
    "agent away": Case(
        "the agent is not running",
        "agent run",
        EXPECTED["not launched"],
        is_launched=False,
        situation=replace(SOUND, has_agent=False),
    ),
    "launch fails": Case(
        "could not be launched, 2 times",
        "jobs show",
        EXPECTED["not launched"],
        is_launched=False,
        edits=("UPDATE byoc.job SET launch_failures = 2 WHERE submission_id = %(job)s",),
    ),
    "no image": Case(
        "its image is being pulled: HTTP 503",
        "images add docker://registry.example/a@sha256:",
        EXPECTED["no image"],
        is_launched=False,
        edits=(WANTED, PULL),
    ),
    "no input": Case(
        "an input is being fetched: HTTP 503",
        "agent's log",
        EXPECTED["no input"],
        is_launched=False,
        edits=(FETCH,),
    ),
    "no earlier output": Case(
        "it waits for the job job-",
        "jobs show job-",
        EXPECTED["no earlier output"],
        is_launched=False,
        edits=(DEPENDS,),
    ),
    "no room": Case(
        "1 jobs are under way, the policy allows 1",
        "active_jobs",
        EXPECTED["no room"],
        is_launched=False,
        situation=replace(SOUND, limits=Limits(active_jobs=1)),
    ),
    "no room for the tenant": Case(
        "1 jobs of the tenant are under way, the policy allows 1",
        "active_jobs_per_tenant",
        EXPECTED["no room"],
        is_launched=False,
        situation=replace(SOUND, limits=Limits(active_jobs_per_tenant=1)),
    ),
    "room": Case(
        "although there is room", "byoc status", EXPECTED["not launched"], is_launched=False
    ),
    "no node": Case(
        "no longer in AiiDA",
        "verdi node show",
        0,
        edits=("UPDATE byoc.job SET process_pk = 2147483647 WHERE submission_id = %(job)s",),
    ),
    "no task": Case(
        "has no task", "verdi process repair", EXPECTED["without a worker"], situation=WITH_TASKS
    ),
    "nobody's task": Case(
        "waits for a worker",
        "verdi daemon start",
        EXPECTED["without a worker"],
        edits=(task("NULL", "-1 minute"),),
        situation=WITH_TASKS,
    ),
    "a task that kills": Case(
        "its workers died 4 times",
        "verdi daemon logshow",
        EXPECTED["without a worker"],
        edits=(task("NULL", "5 minutes"),),
        situation=WITH_TASKS,
    ),
    "a dead worker's task": Case(
        "belongs to a worker that is dead",
        "verdi daemon start",
        EXPECTED["without a worker"],
        edits=(DEAD, task(f"'{WORKER}'", "0")),
        situation=WITH_TASKS,
    ),
    "paused by AiiDA": Case(
        "it is played again by itself, so far 0 times",
        "verdi process play",
        EXPECTED["held"],
        reports=(HELD,),
        edits=(pause(BY_AIIDA),),
    ),
    "given up": Case(
        "played again 3 times in vain",
        "verdi process play",
        0,
        reports=(HELD,),
        edits=(pause(BY_AIIDA), PLAYED),
    ),
    "paused by an operator": Case(
        "paused by an operator: maintenance",
        "verdi process play",
        EXPECTED["held"],
        reports=(HELD,),
        edits=(pause("maintenance"),),
    ),
    "held": Case(
        "the transport is down", "verdi process report", EXPECTED["held"], reports=(HELD,)
    ),
    "queued": Case(
        "Slurm lets it wait: Priority",
        "scontrol show job 77",
        EXPECTED["in Slurm's queue"],
        reports=(QUEUED,),
    ),
    "queued in vain": Case(
        "Slurm lets it wait: PartitionTimeLimit",
        "scontrol show job 77",
        EXPECTED["in Slurm's queue for a reason that time does not cure"],
        reports=(HOPELESS,),
    ),
    "beyond its walltime": Case(
        "its walltime of 120 s has passed",
        "scontrol show job 77",
        EXPECTED["beyond its walltime"] + 120,
        reports=(QUEUED, ("running", {})),
    ),
    "not in Slurm": Case("not in Slurm yet", "verdi process report", EXPECTED["not in Slurm"]),
}


@pytest.fixture
def stand_still(node: Any) -> Callable[[Case, int], str]:
    """Bring a job to a stand, so many seconds ago; return its id."""

    def make(case: Case, age: int) -> str:
        submission = node.accept()
        pk = node.launch(submission) if case.is_launched else None
        for state, facts in case.reports:
            report(node.connection, submission, state, facts=facts)
        for edit in case.edits:
            node.connection.execute(edit, {"job": submission, "pk": pk})
        back = "UPDATE byoc.event SET occurred_at = now() - %s * interval '1 s' WHERE submission_id = %s"
        node.connection.execute(back, (age, submission))
        return job_id(node.connection, submission)

    return make


@pytest.fixture
def another_job(node: Any) -> None:
    """One that is under way."""
    node.launch(node.accept())


@pytest.fixture(autouse=True)
def nothing_left(node: Any) -> Iterator[None]:
    yield
    node.connection.execute("TRUNCATE byoc.task, byoc.worker, byoc.play, byoc.relay_trouble")


def job_id(connection: psycopg.Connection, submission: str) -> str:
    row = connection.execute(
        "SELECT job_id FROM byoc.job WHERE submission_id = %s", (submission,)
    ).fetchone()
    assert row is not None
    return str(row[0])


def findings(connection: psycopg.Connection, job: str, situation: Situation) -> list[Finding]:
    """What is said of the job itself; nothing is delivered in this tier."""
    return [
        each
        for each in overdue(connection, situation)
        if each.job_id == job and "undelivered" not in each.cause
    ]


@pytest.mark.usefixtures("another_job")
@pytest.mark.parametrize("name", CASES)
def test_i3_what_stands_still_is_named_with_its_cause_and_what_helps(
    node: Any, stand_still: Callable[[Case, int], str], name: str
) -> None:
    case = CASES[name]
    job = stand_still(case, case.after + 1)

    (found,) = findings(node.connection, job, case.situation)

    assert case.cause in found.cause
    assert case.command in found.command
    assert case.after <= found.age <= case.after + 60


@pytest.mark.usefixtures("another_job")
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.after])
def test_what_is_as_old_as_expected_is_not_named(
    node: Any, stand_still: Callable[[Case, int], str], name: str
) -> None:
    case = CASES[name]
    job = stand_still(case, case.after // 2)

    assert findings(node.connection, job, case.situation) == []


def test_a_cancel_that_slurm_does_not_confirm_is_named(node: Any) -> None:
    submission = node.accept()
    node.launch(submission)
    for minutes, named in ((2, 0), (6, 1)):
        node.connection.execute(
            "UPDATE byoc.job SET cancel_requested_at = now() - %s * interval '1 min' WHERE submission_id = %s",
            (minutes, submission),
        )
        found = findings(node.connection, job_id(node.connection, submission), SOUND)
        assert len(found) == named

    assert "Slurm has not confirmed" in found[0].cause
    assert f"--name=byoc-{submission}-1" in found[0].command


@pytest.mark.parametrize(
    ("edit", "minutes", "cause"),
    [
        ("acked_seq = 0", 6, "1 event(s) undelivered: unreachable since then"),
        ("acked_seq = 0", 2, None),
        ("acked_seq = latest_seq", 6, None),
        (
            'quarantine = \'{"seq": 1, "code": "forbidden", "message": "no"}\', quarantined_at = now()',
            0,
            "the product refused an event, 1 wait: forbidden: no",
        ),
    ],
)
def test_what_the_product_does_not_know_is_named(
    node: Any, stand_still: Callable[[Case, int], str], edit: str, minutes: int, cause: str | None
) -> None:
    """Also of jobs that have ended; here one that was never launched."""
    job = stand_still(CASES["room"], minutes * 60)
    node.connection.execute("UPDATE byoc.job SET state = 'cancelled' WHERE job_id = %s", (job,))
    node.connection.execute(
        f"UPDATE byoc.stream SET {edit} FROM byoc.job"  # noqa: S608
        " WHERE job.submission_id = stream.submission_id AND job_id = %s",
        (job,),
    )

    found = overdue(node.connection, replace(SOUND, trouble="unreachable since then"))

    assert [each.cause for each in found if each.job_id == job] == ([cause] if cause else [])
