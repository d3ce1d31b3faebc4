"""Which words of the witnesses mean what: the table, case by case."""

from __future__ import annotations

import pytest

from aiida_byoc.schedulers.verdict import MARGIN, Finding, Verdict, judge
from aiida_byoc.schedulers.witnesses import NODE, Evidence

WALLTIME = 60.0
FAILURES = ["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"]


def seen(
    *,
    controller: bool = True,
    jobs: dict[str, str] | None = None,
    accounts: dict[str, str] | None = None,
    directory: bool = True,
    fence: str | None = None,
    record: bool = False,
) -> Evidence:
    """What was found; by default an attempt that nobody knows and nobody ran."""
    return Evidence(
        controller=controller,
        jobs=jobs or {},
        accounts=accounts or {},
        directory=directory,
        fence=fence,
        record=record,
    )


def finding(evidence: Evidence, doubted: float = 0.0) -> Finding:
    return judge(evidence, doubted=doubted, walltime=WALLTIME).finding


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("fence", [None, "", "17", NODE])
def test_without_the_controller_nothing_is_known(fence: str | None, record: bool) -> None:
    """Not even with a record, nor after any time: that is one witness."""
    verdict = judge(
        seen(controller=False, fence=fence, record=record), doubted=1e9, walltime=WALLTIME
    )

    assert verdict.finding is Finding.DOUBT
    assert "does not answer" in verdict.reason


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "NEW_IN_26"])
def test_a_job_that_is_active_is_waited_for(state: str, record: bool) -> None:
    """Also if its record is there: it is being cleaned up."""
    evidence = seen(jobs={"17": state}, fence="17", record=record)

    assert judge(evidence, doubted=1e9, walltime=WALLTIME) == Verdict(
        finding=Finding.WAIT, job="17"
    )


def test_of_two_copies_the_active_one_counts() -> None:
    """One of a doubled submission ended at the fence, the other runs."""
    verdict = judge(seen(jobs={"9": "FAILED", "17": "RUNNING"}), doubted=0, walltime=WALLTIME)

    assert (verdict.finding, verdict.job) == (Finding.WAIT, "17")


@pytest.mark.parametrize("state", ["COMPLETED", *FAILURES])
def test_an_end_with_a_record_is_an_end(state: str) -> None:
    evidence = seen(jobs={"17": state}, fence="17", record=True)

    assert judge(evidence, doubted=0, walltime=WALLTIME) == Verdict(finding=Finding.ENDED, job="17")


def test_a_record_of_a_job_that_slurm_forgot_is_an_end() -> None:
    """The queue agrees that it does not run; accounting is not needed."""
    assert finding(seen(fence="17", record=True)) is Finding.ENDED


@pytest.mark.parametrize("state", FAILURES)
def test_a_failure_needs_no_record(state: str) -> None:
    """Slurm says it was killed, and it did not live to write one."""
    assert finding(seen(jobs={"17": state}, fence="17")) is Finding.ENDED
    assert finding(seen(jobs={"17": state}, fence="")) is Finding.ENDED


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "REQUEUED"])
def test_what_only_accounting_has_as_active_is_not_waited_for(state: str) -> None:
    """A controller that was killed forgot it; accounting never hears of its end."""
    runaway = {"17": state}

    assert finding(seen(accounts=runaway, fence="17", record=True)) is Finding.ENDED
    assert finding(seen(accounts=runaway)) is Finding.CLOSE
    assert finding(seen(accounts=runaway, fence=NODE)) is Finding.ENDED


@pytest.mark.parametrize("state", FAILURES)
def test_an_end_that_only_accounting_knows_is_an_end(state: str) -> None:
    """The controller forgets what ended MinJobAge seconds ago."""
    assert finding(seen(accounts={"17": state}, fence="17")) is Finding.ENDED
    assert finding(seen(accounts={"17": "COMPLETED"}, fence="17", record=True)) is Finding.ENDED


@pytest.mark.parametrize("jobs", [{}, {"17": "COMPLETED"}, *[{"17": state} for state in FAILURES]])
def test_what_nobody_ran_is_closed_first(jobs: dict[str, str]) -> None:
    """A copy that Slurm has not shown yet could still start; behind the node's fence it cannot."""
    assert finding(seen(jobs=jobs)) is Finding.CLOSE
    assert finding(seen(jobs=jobs, fence=NODE)) is Finding.ENDED


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        (seen(jobs={"17": "COMPLETED"}, fence="17"), "completed, but there is no completion"),
        (seen(jobs={"17": "COMPLETED"}, fence=""), "completed, but there is no completion"),
        (seen(fence="17"), "does not know job 17"),
        (seen(fence=""), "does not know the job that ran it"),
        (seen(jobs={"18": "FAILED"}, fence="17"), "does not know job 17"),
        (seen(accounts={"17": "RUNNING"}, fence="17"), "ran it (accounting: RUNNING)"),
        (seen(accounts={"17": "COMPLETED"}, fence="17"), "completed, but there is no completion"),
        (seen(directory=False), "directory is not there"),
        (seen(jobs={"17": "FAILED"}, directory=False), "directory is not there"),
    ],
    ids=[
        *("no record", "no owner", "forgotten", "nobody", "the other copy"),
        *("runaway", "accounted", "no place", "failed"),
    ],
)
def test_a_contradiction_is_doubted_until_no_job_can_be_left(evidence: Evidence, says: str) -> None:
    """A job that runs without Slurm's knowledge is over after its walltime."""
    verdict = judge(evidence, doubted=WALLTIME + MARGIN, walltime=WALLTIME)

    assert verdict.finding is Finding.DOUBT
    assert says in verdict.reason
    assert finding(evidence, doubted=WALLTIME + MARGIN + 1) is Finding.ENDED
