"""The comparison sees everything that must not be: what one truth says against the others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from lab.chaos.evidence import Evidence
from lab.chaos.load import Job
from lab.chaos.truths import compare

SUBMISSION = "11111111-1111-4111-8111-111111111111"
NAME = f"byoc-{SUBMISSION}-1"
STATES = ["accepted", "launched", "queued", "succeeded"]


def _job(**changes: Any) -> Job:
    job = Job(
        tenant=0, tenant_id="acme", command={"job_id": "job-1"}, expected="succeeded", **changes
    )
    job.submission_id = changes.get("submission_id", SUBMISSION)
    return job


def _evidence() -> dict[str, Any]:
    """What all four say of one job that ran and succeeded."""
    told = [{"seq": seq, "state": state} for seq, state in enumerate(STATES, start=1)]
    row = {"submission_id": SUBMISSION, "tenant_id": "acme", "job_id": "job-1", "process_pk": 1}
    timeline = [
        {"seq": data["seq"], "execution_state": data["state"], "outcome": "applied"}
        for data in told
    ]
    return {
        "ledger": [
            {
                **row,
                "state": "succeeded",
                "seq": 4,
                "acked_seq": 4,
                "latest_seq": 4,
                "quarantine": None,
            }
        ],
        "events": {SUBMISSION: told},
        "chains": [{"submission_id": SUBMISSION, "id": 1, "state": "finished"}],
        "calculations": [
            {"submission_id": SUBMISSION, "attempt": "iteration_01", "id": 2, "state": "finished"}
        ],
        "finished": [{"JobId": "7", "Name": NAME, "JobState": "COMPLETED", "ExitCode": "0:0"}],
        "queued": [],
        "runs": {SUBMISSION: [["start", "end"]]},
        "tasks": {},
        "tables": {},
        "shown": {"job-1": ({"seq": 4, "execution_state": "succeeded"}, timeline)},
        "repairs": {},
    }


def test_truths_that_agree_hold() -> None:
    """Nothing is found where nothing is; the counts say what there was."""
    truths = compare([_job()], Evidence(**_evidence()))

    assert truths.holds, truths.table()
    assert truths.counts == {
        "submitted": 1,
        "accepted": 1,
        "executed once": 1,
        "never started": 0,
        "arrays": 0,
        "tasks of arrays": 0,
        "tasks that succeeded, once": 0,
        "second copies that the fence stopped": 0,
        "ended: succeeded": 1,
    }


def _again(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found[name].append({**found[name][0], "id": 9, "JobId": "8"})


def _set(place: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found[place][0].update(changes)


WRONG: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = [
    ("the ledger lost it", "lost", lambda f: f["ledger"].clear()),
    ("the product lost it", "lost", lambda f: f["shown"].clear()),
    ("its work chain is gone", "lost", lambda f: f["chains"].clear()),
    (
        "it ran again in the same directory",
        "executed twice",
        lambda f: f["runs"][SUBMISSION][0].append("start"),
    ),
    (
        "it ran again in another directory",
        "executed twice",
        lambda f: f["runs"][SUBMISSION].append(["start"]),
    ),
    ("two work chains", "doubled", _again("chains")),
    ("two calculations of an attempt", "doubled", _again("calculations")),
    ("two Slurm jobs of an attempt", "doubled", _again("finished")),
    ("an event is missing", "out of order", lambda f: f["events"][SUBMISSION].pop(1)),
    (
        "an event may not follow the other",
        "out of order",
        lambda f: f["events"][SUBMISSION][1].update(state="running"),
    ),
    ("the ledger's state has no event", "out of order", _set("ledger", state="failed")),
    ("the timeline has a hole", "out of order", lambda f: f["shown"]["job-1"][1].pop(1)),
    (
        "an update came late",
        "out of order",
        lambda f: f["shown"]["job-1"][1][1].update(outcome="superseded"),
    ),
    ("the projection is old", "out of order", lambda f: f["shown"]["job-1"][0].update(seq=3)),
    ("it never ended", "stuck", _set("ledger", state="running")),
    ("it was not delivered", "stuck", _set("ledger", acked_seq=3)),
    ("it is quarantined", "stuck", _set("ledger", quarantine={"code": "x"})),
    ("AiiDA still works on it", "stuck", _set("calculations", state="waiting")),
    ("Slurm still has it", "stuck", lambda f: f["queued"].append(NAME)),
    (
        "success of what did not come to its end",
        "untrue",
        lambda f: f["runs"][SUBMISSION][0].remove("end"),
    ),
    ("success of what never ran", "untrue", lambda f: f["runs"].clear()),
]


@pytest.mark.parametrize(
    ("kind", "change"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_each_thing_that_must_not_be_is_found(
    kind: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """One change to what agreed, one kind of violation that names the job."""
    found = deepcopy(_evidence())
    change(found)

    truths = compare([_job()], Evidence(**found))

    assert [each for each in truths.violations[kind] if each.startswith("job-1: ")]


def test_what_the_submitter_was_told_counts() -> None:
    """No answer until the end, another answer to the same key, another submission than the one that was accepted."""
    evidence = Evidence(**_evidence())
    unanswered, other, contradicted = _job(), _job(), _job()
    unanswered.submission_id = None
    other.submission_id = "22222222-2222-4222-8222-222222222222"
    contradicted.contradictions.append("another")

    assert compare([unanswered], evidence).violations["lost"]
    assert compare([other], evidence).violations["lost"]
    assert compare([contradicted], evidence).violations["doubled"]


@pytest.mark.parametrize("code", ["lost", "node_fail"])
def test_an_end_must_be_the_programs_or_its_cancellers(code: str) -> None:
    """`cancelled` needs somebody who cancelled, `lost` a controller that forgot and a program that did not end."""
    ended = _evidence()
    ended["events"][SUBMISSION][-1].update(state="cancelled")
    ended["ledger"][0].update(state="cancelled")
    lost = _evidence()
    lost["events"][SUBMISSION][-1].update(state="failed", error={"code": code})
    lost["ledger"][0].update(state="failed")
    cancelled = _job()
    cancelled.cancelled = True

    assert compare([_job()], Evidence(**ended)).violations["untrue"]
    assert not compare([cancelled], Evidence(**ended)).violations["untrue"]
    assert len(compare([_job()], Evidence(**lost)).violations["untrue"]) == 2
    assert len(compare([_job()], Evidence(**lost), slurm_forgot=True).violations["untrue"]) == 1
    lost["runs"][SUBMISSION][0].remove("end")
    assert not compare([_job()], Evidence(**lost), slurm_forgot=True).violations["untrue"]


def test_the_elements_of_an_array_are_one_job() -> None:
    """Each of them once: the same element again is a second run."""
    found = _evidence()
    (line,) = found["finished"]
    found["finished"] = [
        {**line, "JobId": str(7 + n), "ArrayJobId": "7", "ArrayTaskId": str(n)} for n in range(3)
    ]
    assert compare([_job()], Evidence(**found)).holds

    found["finished"].append(found["finished"][2])
    assert compare([_job()], Evidence(**found)).violations["doubled"]


def _array() -> tuple[Job, dict[str, Any]]:
    """An array of four tasks of which one fails, as all four tell of it."""
    found = _evidence()
    job = _job(failing=frozenset({2}))
    job.command["workload"] = {"kind": "array", "tasks": {"count": 4}}
    job.expected = "failed (tasks_failed)"
    counts = {"total": 4, "succeeded": 3, "failed": 1, "interrupted": 0}
    end = {"error": {"code": "tasks_failed"}, "result": {"tasks": counts}}
    found["events"][SUBMISSION][-1].update(state="failed", **end)
    found["ledger"][0].update(state="failed")
    found["shown"]["job-1"][0].update(execution_state="failed")
    found["shown"]["job-1"][1][-1].update(execution_state="failed")
    done = ["start", "ok", "end"]
    found["runs"] = {}
    found["tasks"] = {SUBMISSION: {n: [["start", "end"] if n == 2 else [*done]] for n in range(4)}}
    found["tables"] = {
        SUBMISSION: {n: "failed" if n == 2 else "succeeded" for n in range(4)},
    }
    return job, found


def test_an_array_whose_tasks_agree_holds() -> None:
    job, found = _array()

    truths = compare([job], Evidence(**found))

    assert truths.holds, truths.table()
    assert (truths.counts["executed once"], truths.counts["tasks that succeeded, once"]) == (1, 3)


WRONG_TASKS: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = [
    ("it began twice", "executed twice", lambda f: f["tasks"][SUBMISSION][1][0].append("start")),
    (
        "it began again after it had succeeded",
        "executed twice",
        lambda f: f["tasks"][SUBMISSION][1].append(["start"]),
    ),
    (
        "what cannot succeed did",
        "untrue",
        lambda f: f["tasks"][SUBMISSION][2][0].append("ok"),
    ),
    ("it is not in the table", "lost", lambda f: f["tables"][SUBMISSION].pop(1)),
    ("there is no table", "lost", lambda f: f["tables"].clear()),
    ("its success was lost", "untrue", lambda f: f["tables"][SUBMISSION].update({1: "failed"})),
    ("it did not end", "untrue", lambda f: f["tables"][SUBMISSION].update({1: "interrupted"})),
    ("its failure was lost", "untrue", lambda f: f["tables"][SUBMISSION].update({2: "succeeded"})),
    ("it never ran", "untrue", lambda f: f["tasks"][SUBMISSION].pop(1)),
    ("it did not come to its end", "untrue", lambda f: f["tasks"][SUBMISSION][1][0].remove("end")),
    (
        "the event counts another number",
        "untrue",
        lambda f: f["events"][SUBMISSION][-1]["result"]["tasks"].update(failed=2),
    ),
]


@pytest.mark.parametrize(
    ("kind", "change"), [row[1:] for row in WRONG_TASKS], ids=[row[0] for row in WRONG_TASKS]
)
def test_each_thing_that_must_not_be_with_a_task_is_found(
    kind: str, change: Callable[[dict[str, Any]], object]
) -> None:
    job, found = _array()
    change(found)

    violations = compare([job], Evidence(**found)).violations

    assert [each for each in violations[kind] if each.startswith("job-1: ")], violations


def test_what_ended_before_a_cancel_is_kept() -> None:
    """Of the job, or of its tasks alone; whether a task had ended by then, the table knows."""
    job, found = _array()
    job.cancelled = True
    end = found["events"][SUBMISSION][-1]
    end.update(state="cancelled")
    del end["error"]
    end["result"]["tasks"].update(succeeded=1, cancelled=2)
    found["tables"][SUBMISSION].update({0: "cancelled", 1: "cancelled"})
    found["tasks"][SUBMISSION][0][0].remove("ok")
    for told in (found["ledger"][0], *found["shown"]["job-1"][1][-1:]):
        told.update(state="cancelled", execution_state="cancelled")
    found["shown"]["job-1"][0].update(execution_state="cancelled")
    assert compare([job], Evidence(**found)).holds

    found["tables"][SUBMISSION][3] = "failed"
    assert compare([job], Evidence(**found)).violations["untrue"]
    found["tables"].clear()
    assert compare([job], Evidence(**found)).violations["lost"]


def test_tasks_that_are_withdrawn_end_as_they_would_have_or_are_cancelled() -> None:
    job, found = _array()
    job.withdrawn = range(1, 2)
    found["tables"][SUBMISSION][1] = "cancelled"
    found["events"][SUBMISSION][-1]["result"]["tasks"].update(succeeded=2, cancelled=1)
    assert compare([job], Evidence(**found)).holds

    found["tables"][SUBMISSION][0] = "cancelled"
    assert compare([job], Evidence(**found)).violations["untrue"]


def test_a_task_that_did_not_end_may_begin_again_in_another_attempt() -> None:
    job, found = _array()
    found["tasks"][SUBMISSION][1].insert(0, ["start"])

    assert compare([job], Evidence(**found)).holds
