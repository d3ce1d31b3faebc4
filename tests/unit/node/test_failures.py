"""The truth table of ends: whole, without dead rows, and the one in the documents."""

from __future__ import annotations

from itertools import product

import pytest

from aiida_byoc.contracts.failures import FAILURES
from aiida_byoc.schedulers.ending import Ending, ending
from aiida_byoc.schedulers.ends import ENDS, Record
from aiida_byoc.schedulers.failures import OVER_MEMORY, ROWS, explain, rendered
from aiida_byoc.schedulers.witnesses import ENDED_STATES
from tests.contracts.messages import ROOT

SHOWN = (
    "JobId=17 JobName=b-0123-1 UserId=alice(1000) GroupId=alice(1000) Priority=1 Nice=0 Account=(null) QOS=(null)"
    " JobState={state} Reason={reason} Dependency=(null) Requeue=0 Restarts={restarts} BatchFlag=1 ExitCode={code}"
    " RunTime=00:00:01 TimeLimit=00:01:00 Partition=main AllocNode:Sid=c0:1 ReqNodeList=(null) ExcNodeList=(null)"
    " NodeList=n1 BatchHost=n1 Comment=JobState=COMPLETED WorkDir=/work/a\n"
)


def shown(state: str, code: str = "0:0", reason: str = "None", restarts: int = 0) -> Ending:
    return ending(SHOWN.format(state=state, code=code, reason=reason, restarts=restarts))


def test_the_table_in_the_documents_is_the_code() -> None:
    assert rendered() in (ROOT / "docs" / "failures.md").read_text()


def test_every_end_has_its_place_in_the_catalogue_and_in_the_table() -> None:
    assert set(ENDS) <= set(FAILURES)
    assert {row.code for row in ROWS} == {*ENDS, None}
    assert len({end.status for end in ENDS.values()}) == len({end.label for end in ENDS.values()})


CASES = [
    (Ending(state=state or None, exit=status, signal=signal, reason=reason, restarts=restarts, refused=refused),
     record, stderr)
    for state, status, signal, reason, restarts, refused, record, stderr in product(
        (*sorted(ENDED_STATES), "", "RUNNING"), (0, 1, 75, 127), (0, 9, 53), ("", "BadConstraints"), (0, 1),
        (False, True), Record, ("", OVER_MEMORY),
    )
]  # fmt: skip


def test_every_row_is_the_first_to_match_something() -> None:
    hit = {
        next((row for row in ROWS if row.matches(seen, record, over_memory=bool(stderr))), None)
        for seen, record, stderr in CASES
    }

    assert set(ROWS) <= hit


def test_i19_only_a_complete_record_is_success_and_nothing_is_left_unnamed() -> None:
    for seen, record, stderr in CASES:
        end = explain(seen, record, stderr=stderr)
        if record is Record.UNREAD:
            continue
        assert record in {Record.COMPLETE, Record.TOLD_TO_END} or end is not None, (seen, record)
        if record is Record.COMPLETE:
            assert (end is None) is (seen.state != "OUT_OF_MEMORY")
        if record is Record.TOLD_TO_END:
            ended_by_slurm = seen.state in ENDED_STATES - {"COMPLETED", "FAILED"} or (
                seen.state in {"COMPLETED", "FAILED"} and seen.restarts > 0
            )
            assert (end is None) is not (
                ended_by_slurm or (stderr and seen.state in {"FAILED", None})
            )


def test_the_plugin_alone_names_only_what_slurm_says() -> None:
    """A calculation without a record has its own parser: what Slurm calls completed or failed is left to that."""
    for seen, record, stderr in CASES:
        if record is Record.UNREAD and seen.state in {"COMPLETED", "FAILED", None, "RUNNING"}:
            end = explain(seen, record, stderr=stderr)
            allowed = {"launch_failed"} if seen.signal == 53 else set()
            allowed |= {"oom"} if stderr else set()
            allowed |= {"scheduler_refused"} if seen.reason else set()
            assert end is None or end.code in allowed


@pytest.mark.parametrize(
    ("seen", "record", "code"),
    [
        (shown("COMPLETED"), Record.COMPLETE, None),
        (shown("COMPLETED"), Record.NONE, "lost"),
        (shown("COMPLETED"), Record.INVALID, "record_invalid"),
        (shown("CANCELLED", "0:15"), Record.COMPLETE, None),
        (shown("CANCELLED", "0:15"), Record.TOLD_TO_END, "killed"),
        (shown("PREEMPTED", "0:15"), Record.TOLD_TO_END, "preempted"),
        (shown("COMPLETED"), Record.TOLD_TO_END, None),
        (shown("NODE_FAIL", reason="NodeDown"), Record.COMPLETE, None),
        (shown("TIMEOUT", "0:15", "TimeLimit"), Record.COMPLETE, None),
        (shown("OUT_OF_MEMORY", "0:125", "OutOfMemory"), Record.COMPLETE, "oom"),
        (shown("OUT_OF_MEMORY", "0:125", "OutOfMemory"), Record.FAILED, "oom"),
        (shown("TIMEOUT", "0:15", "TimeLimit"), Record.FAILED, "container_failed"),
        (shown("TIMEOUT", "0:15", "TimeLimit"), Record.NONE, "timeout"),
        (shown("NODE_FAIL", reason="NodeDown"), Record.NONE, "node_fail"),
        (shown("BOOT_FAIL"), Record.NONE, "boot_fail"),
        (shown("PREEMPTED", "0:15"), Record.NONE, "preempted"),
        (shown("CANCELLED"), Record.NONE, "killed"),
        (shown("DEADLINE", "0:1", "DeadLine"), Record.NONE, "deadline_exceeded"),
        (shown("FAILED", "3:0", "NonZeroExitCode"), Record.FAILED, "container_failed"),
        (shown("FAILED", "125:0", "NonZeroExitCode"), Record.NOT_STARTED, "container_not_started"),
        (shown("FAILED", "0:53", "JobLaunchFailure"), Record.NONE, "launch_failed"),
        (ending("FAILED|0:53|n1\n"), Record.NONE, "launch_failed"),
        (shown("FAILED", "0:1", "BadConstraints"), Record.NONE, "scheduler_refused"),
        (shown("FAILED", "127:0", "NonZeroExitCode"), Record.NONE, "launch_failed"),
        (shown("FAILED", "0:9", "JobLaunchFailure"), Record.NONE, "lost"),
        (shown("FAILED", "75:0", "NonZeroExitCode", restarts=1), Record.NONE, "requeued"),
        (shown("FAILED", "75:0", "NonZeroExitCode", restarts=1), Record.STOPPED, "requeued"),
        (shown("FAILED", "75:0", "NonZeroExitCode", restarts=1), Record.TOLD_TO_END, "requeued"),
        (shown("FAILED", "75:0", "NonZeroExitCode", restarts=1), Record.FAILED, "container_failed"),
        (shown("FAILED", "143:0", "NonZeroExitCode", restarts=1), Record.STOPPED, "requeued"),
        (shown("COMPLETED", restarts=1), Record.TOLD_TO_END, "requeued"),
        (shown("FAILED", "143:0", "NonZeroExitCode"), Record.STOPPED, "killed"),
        (shown("TIMEOUT", "143:0", "TimeLimit"), Record.STOPPED, "timeout"),
        (shown("FAILED", "9:0", "NonZeroExitCode"), Record.CHECKPOINTED, "timeout"),
        (ending(""), Record.STOPPED, "killed"),
        (shown("FAILED", "75:0", "NonZeroExitCode"), Record.NONE, "lost"),
        (shown("FAILED", "75:0", "NonZeroExitCode", restarts=1), Record.COMPLETE, None),
        (ending(""), Record.NONE, "lost"),
        (ending(""), Record.COMPLETE, None),
    ],
)  # fmt: skip
def test_what_the_witnesses_say_has_one_name(
    seen: Ending, record: Record, code: str | None
) -> None:
    end = explain(seen, record)

    assert (end.code if end else None) == code


def test_the_controllers_answer_is_read() -> None:
    seen = shown("FAILED", "3:0", "NonZeroExitCode", restarts=2)

    assert (seen.state, seen.exit, seen.signal, seen.restarts) == ("FAILED", 3, 0, 2)
    assert str(seen) == "Slurm says FAILED, exit 3:0, NonZeroExitCode"


def test_accounting_says_who_cancelled() -> None:
    """After the controller's answer, or alone."""
    seen = ending(
        SHOWN.format(state="CANCELLED", reason="None", restarts=0, code="0:15")
        + "CANCELLED by 1002|0:15|n1\n"
    )

    assert (seen.state, seen.signal, seen.cancelled_by) == ("CANCELLED", 15, "1002")
    assert ending("CANCELLED by 0|0:15|n1\n").cancelled_by == "0"
    assert "stopped by the user 1002, not by this node" in ENDS["killed"].told(seen)
    assert "by somebody else" in ENDS["killed"].told(shown("CANCELLED"))


AT = "2026-11-26T17:45:00"
REFUSED = (
    "JobId=1{array} JobName=b-0123-1 JobState=CANCELLED Reason=None Requeue=0 Restarts=0 BatchFlag=1 ExitCode={code}"
    " RunTime=00:00:00 StartTime={began} EndTime={ended} ReqNodeList=(null) NodeList=n1 BatchHost=n1 NumNodes=1\n"
    "{accounted}{unlaunched}{drained}set Prolog {prolog}\nset PrologEpilogTimeout 65534\nset PrologSlurmctld (null)\n"
    "set PrologFlags (null)\nset SlurmdUser root(0)\n"
)
DUPLICATE = f"drained Duplicate jobid [root@{AT}]\n"


@pytest.mark.parametrize(
    ("is_refused", "said"),
    [
        (True, {"drained": DUPLICATE}),
        (True, {"drained": f"drained Prolog error [slurm@{AT}]\n"}),
        (True, {"drained": DUPLICATE, "ended": "2026-11-26T17:44:59"}),
        (True, {"drained": DUPLICATE, "accounted": "CANCELLED by 0|0:0|n1\n"}),
        (True, {"drained": DUPLICATE, "code": "0:15"}),
        (True, {"prolog": "(null)"}),
        (True, {"prolog": "(null)", "began": "2026-11-26T17:44:59"}),
        (True, {"prolog": "(null)", "drained": "drained a new fan [root@Unknown]\n"}),
        (True, {"drained": DUPLICATE, "array": " ArrayJobId=1 ArrayTaskId=2"}),
        (False, {"prolog": "(null)", "array": " ArrayJobId=1 ArrayTaskId=2"}),
        (False, {}),
        (False, {"drained": "drained a new fan [root@2026-11-26T17:45:00]\n"}),
        (False, {"drained": "drained Duplicate jobid [root@2026-11-26T16:45:00]\n"}),
        (False, {"drained": "drained Duplicate jobid [root@yesterday]\n"}),
        (False, {"drained": DUPLICATE, "unlaunched": ""}),
        (False, {"drained": DUPLICATE, "accounted": "CANCELLED by 1002|0:0|n1\n"}),
        (False, {"prolog": "(null)", "accounted": "CANCELLED by 1002|0:0|n1\n"}),
        (False, {"prolog": "(null)", "unlaunched": ""}),
        (False, {"prolog": "(null)", "began": "2026-11-26T17:44:58"}),
    ],
)  # fmt: skip
def test_a_node_that_refused_a_job_is_told_from_whoever_cancelled_it(
    is_refused: bool, said: dict[str, str]
) -> None:
    """By its being drained at once, or by the want of anything to wait for before the job begins."""
    words = {"code": "0:0", "began": AT, "ended": AT, "accounted": "", "unlaunched": "unlaunched\n"}
    words |= {"drained": "", "prolog": "/p", "array": ""}

    seen = ending(REFUSED.format(**{**words, **said}))

    assert seen.refused is is_refused
    end = explain(seen, Record.NONE)
    assert end is not None
    assert end.code == ("launch_refused" if is_refused else "killed")


def test_the_nodes_of_a_failed_node_are_read() -> None:
    seen = ending(
        SHOWN.format(state="NODE_FAIL", reason="NodeDown", restarts=0, code="0:0")
        + "ran n1\nran n2\nusable n3\nusable gpu-4.site\nran $(id)\n"
    )

    assert (seen.nodes, seen.usable) == (("n1", "n2"), ("n3", "gpu-4.site"))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("slurm_load_jobs error: Invalid job id specified\nTIMEOUT|0:0|n1\n", "TIMEOUT"),
        ("COMPLETED|0:0\n", "COMPLETED"),
        ("slurm_load_jobs error: Invalid job id specified\n", None),
        ("JobName=x|y NotJobState=FAILED", None),
        ("Completed|0:0", None),
        ("JobState= ExitCode=x:y Restarts=-1", None),
        ("\x00\xff|", None),
    ],
)  # fmt: skip
def test_any_answer_can_be_read(text: str, state: str | None) -> None:
    assert ending(text).state == state


@pytest.mark.parametrize(
    ("state", "code"),
    [("FAILED", "container_failed"), ("TIMEOUT", "timeout"), ("NODE_FAIL", "node_fail")],
)
def test_a_program_that_a_signal_ended_is_explained_by_slurm_if_it_can(
    state: str, code: str
) -> None:
    """slurmd signals the program before the job's own process, which may hear of nothing any more."""
    end = explain(shown(state, "143:0"), Record.SIGNALLED)

    assert end is not None
    assert end.code == code
