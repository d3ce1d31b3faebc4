"""From one attempt to the next, on real Slurm: what is different then, what goes on, and how it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida.orm import load_node

from aiida_byoc.commands.recovery import Recovery
from tests.engine.driving import OUT_OF_TIME, Underway, run

WHOLE_NODE = 16384
SAVES = """
if [ "$BYOC_RESTART" = 1 ]; then echo "$BYOC_ATTEMPT: $(cat state)" > result; exit 0; fi
trap 'echo half > state; exit 9' USR1
echo ready > begun
while :; do sleep 0.1; done
"""
"""A program that saves on its checkpoint signal, and goes on from there."""

STATE = """
if [ "$BYOC_RESTART" = 1 ]; then echo "$BYOC_ATTEMPT: $(cat state)" > result; exit 0; fi
echo half > state; echo ready > begun; sleep 300
"""
"""A program that just leaves what it has."""

ANEW = """
echo "$BYOC_ATTEMPT$BYOC_RESTART" > result; mkdir new || exit 1
[ "$BYOC_ATTEMPT" != 1 ] || { echo ready > begun; sleep 300; }
"""
"""A program that fails when it finds files of its own."""

HOG = """
import os, sys, time
block = bytearray(int(sys.argv[1]) * 2**20)
time.sleep(2 if os.environ["BYOC_ATTEMPT"] == sys.argv[2] else 60)
"""


def start(
    node: Any, program: str, *words: str, on: tuple[str, ...] = (), **changes: Any
) -> Underway:
    """A job of that program, which is an input of its own."""
    attempts = changes.pop("attempts", 2)
    workload = {
        "inputs": [{"name": "program", "text": program}],
        "outputs": [{"name": "result"}] if program is not HOG else [],
        **changes.pop("workload", {}),
    }
    if on:
        changes["retry_policy"] = {"max_attempts": attempts, "on": list(on)}
    if program is HOG:
        changes["resource_shape"] = {"cpu": 1, "memory_mib": 100, "walltime_seconds": 60}
    mortal = changes.pop("mortal", False)
    shell = "python3" if program is HOG else "sh"
    submission = node.accept(shell, "program", *words, workload=workload, **changes)
    return Underway(node, submission, mortal=mortal)


def begun(job: Underway) -> tuple[str, str]:
    """Wait until the program of the newest attempt runs; return Slurm's id and the node."""
    told = job.until_state("running")
    number = told["attempt"]
    job.until((job.directory / "work" / "begun").exists, f"attempt {number} to begin")
    return told["scheduler"]["job_id"], told["scheduler"]["nodes"][0]


def causes(job: Underway) -> list[tuple[int, dict[str, Any] | None]]:
    """Attempt and cause of each event, without repetitions."""
    told = [(each["attempt"], each.get("recovery")) for each in job.node.events(job.submission)]
    return [each for at, each in enumerate(told) if told.index(each) == at]


def shown(job_id: str) -> dict[str, str]:
    words = run("scontrol", "--oneliner", "show", "job", job_id).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def attempts_in_slurm(job: Underway) -> list[dict[str, str]]:
    """What Slurm knows of each attempt, in their order."""
    told = job.node.events(job.submission)
    ids = dict.fromkeys(each["scheduler"]["job_id"] for each in told if "scheduler" in each)
    return [shown(job_id) for job_id in ids]


def result(chain: Any) -> str:
    assert chain.is_finished_ok, chain.exit_message
    return chain.outputs.outputs.base.repository.get_object_content("result")  # type: ignore[no-any-return]


def test_an_attempt_that_ran_out_of_memory_is_followed_by_one_with_more(node: Any) -> None:
    job = start(
        node,
        HOG,
        "150",
        "2",
        on=("oom",),
    )

    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert [each["MinMemoryNode"] for each in attempts_in_slurm(job)] == ["100M", "200M"]
    (first, nothing), (second, cause) = causes(job)
    assert (first, nothing, second) == (1, None, 2)
    assert cause is not None
    assert (cause["attempt"], cause["code"]) == (1, "oom")
    assert cause["action"] == "memory_mib 100 → 200; starts anew"
    assert "ran out of memory" in cause["message"]


def test_memory_ends_at_the_ceiling_and_the_error_says_so(node: Any) -> None:
    """An attempt that could have no more would only end like the one before."""
    job = start(
        node,
        HOG,
        "400",
        "never",
        on=("oom",),
        attempts=5,
        placed={"recovery": Recovery(memory_factor=1.5, memory_ceiling_mib=120)},
    )

    job.finish()

    assert [each["MinMemoryNode"] for each in attempts_in_slurm(job)] == ["100M", "120M"]
    error = job.last["error"]
    assert (job.last["attempt"], job.last["recovery"]["attempt"], error["code"]) == (2, 1, "oom")
    assert error["message"].endswith("since its 120 MiB are at the node's ceiling.")


def test_a_failed_node_is_avoided_by_the_next_attempt(
    node: Any, scontrol: Callable[..., str]
) -> None:
    """Which starts anew: the program promised no checkpoints."""
    job = start(node, ANEW, on=("node_fail",))
    _, where = begun(job)

    scontrol("update", f"nodename={where}", "state=down", "reason=test")
    try:
        chain = job.finish()
    finally:
        scontrol("update", f"nodename={where}", "state=resume")

    assert result(chain) == "2\n"
    first, second = attempts_in_slurm(job)
    assert (first["NodeList"], second["ExcNodeList"]) == (where, where)
    assert second["NodeList"] not in {where, ""}
    cause = causes(job)[-1][1]
    assert cause is not None
    assert (cause["code"], cause["action"]) == ("node_fail", f"not on {where}; starts anew")
    assert chain.called[0].outputs.remote_folder.get_remote_path()


def test_a_preempted_attempt_is_followed_by_one_with_its_files(node: Any) -> None:
    """A new job of Slurm's: it was submitted with --no-requeue."""
    job = start(node, STATE, on=("preempted",))
    first, where = begun(job)

    words = ("--partition=high", f"--mem={WHOLE_NODE}", f"--nodelist={where}")
    other = run("sbatch", "--parsable", *words, "--output=/dev/null", "--wrap=sleep 1").strip()
    chain = job.finish()

    assert result(chain) == "2: half\n"
    assert shown(first)["JobState"] == "PREEMPTED"
    assert len(attempts_in_slurm(job)) == 2
    cause = causes(job)[-1][1]
    assert cause is not None
    assert (cause["code"], cause["action"]) == ("preempted", "goes on with the files")
    run("scancel", other)


def test_the_files_of_an_attempt_are_an_input_of_the_next(node: Any) -> None:
    """Provenance links the directory, and the earlier one stays as it was left."""
    job = start(node, STATE, on=("preempted",))
    _, where = begun(job)
    before = job.attempt
    words = ("--partition=high", f"--mem={WHOLE_NODE}", f"--nodelist={where}")
    run("sbatch", *words, "--output=/dev/null", "--wrap=true")
    job.finish()

    links = job.attempt.base.links.get_incoming(link_label_filter="earlier__%").all()

    assert [link.node.uuid for link in links] == [before.outputs.remote_folder.uuid]
    record = job.attempt.outputs.record.get_dict()
    assert record["carried"] == {"files": 3, "bytes": 11 + len(STATE), "left_out": 0}


@pytest.fixture(scope="module")
def out_of_time(node: Any) -> tuple[tuple[Underway, Any], tuple[Underway, Any]]:
    """Two jobs that come to the end of their walltime, ended: Slurm's timers turn every 30 s, so they wait together."""
    workload = {"checkpoint": {"signal": "USR1", "seconds_before": 100}}
    warned = start(node, SAVES, on=("timeout",), workload=workload)
    killed = start(node, STATE, on=("timeout",))
    run("scontrol", "update", f"jobid={begun(warned)[0]}", "endtime=now+90")
    run("scontrol", "update", f"jobid={begun(killed)[0]}", OUT_OF_TIME)
    return (warned, warned.finish(90)), (killed, killed.finish(90))


def test_a_program_that_is_warned_saves_and_goes_on_in_the_next_attempt(out_of_time: Any) -> None:
    """The signal reaches the program in its container before Slurm ends the job, whatever it exits with."""
    (job, chain), _ = out_of_time

    assert result(chain) == "2: half\n"
    first, second = attempts_in_slurm(job)
    assert (first["JobState"], first["ExitCode"], second["JobState"]) == (
        "FAILED",
        "9:0",
        "COMPLETED",
    )
    record = min(chain.called, key=lambda called: called.pk).outputs.record.get_dict()
    assert (record["signals"], record["exit_code"]) == (["USR1"], 9)
    cause = causes(job)[-1][1]
    assert (cause["code"], cause["action"]) == ("timeout", "goes on with the files")


def test_an_attempt_that_slurm_ended_at_its_walltime_is_followed_by_one_with_its_files(
    out_of_time: Any,
) -> None:
    _, (job, chain) = out_of_time

    assert result(chain) == "2: half\n"
    assert [each["JobState"] for each in attempts_in_slurm(job)] == ["TIMEOUT", "COMPLETED"]
    assert causes(job)[-1][1]["code"] == "timeout"
    assert [state for state in job.states if state not in {"running"}] == [
        *("accepted", "launched", "queued", "queued", "succeeded")
    ]


def test_a_job_that_an_administrator_requeues_goes_on_as_another_attempt(
    node: Any, scontrol: Callable[..., str]
) -> None:
    """Under the same id Slurm would run it where the earlier run may live on: it ends at once."""
    job = start(node, STATE)
    first, _ = begun(job)

    scontrol("update", f"jobid={first}", "requeue=1")
    scontrol("requeue", first)
    job.until(lambda: shown(first)["Restarts"] == "1", "the requeue")
    # Not at once: a slurmd refuses a job's second launch until the revoked credential of its first has expired (5 s).
    scontrol("update", f"jobid={first}", "starttime=now+10")
    chain = job.finish()

    assert result(chain) == "2: half\n"
    seen = shown(first)
    assert (seen["JobState"], seen["ExitCode"]) == ("FAILED", "75:0")
    assert len(attempts_in_slurm(job)) == 2
    cause = causes(job)[-1][1]
    assert cause is not None
    assert (cause["code"], cause["action"]) == ("requeued", "goes on with the files")


def test_an_attempt_that_slurm_refuses_is_told_with_its_cause(
    node: Any, scontrol: Callable[..., str]
) -> None:
    """`sbatch` says that no node has so much, and leaves a failed job behind."""
    job = start(
        node,
        HOG,
        "400",
        "never",
        on=("oom",),
        placed={"recovery": Recovery(memory_factor=1000, memory_ceiling_mib=100_000)},
    )

    job.finish()

    last = job.last
    assert (last["state"], last["error"]["code"], last["attempt"]) == (
        "failed",
        "scheduler_refused",
        2,
    )
    assert last["recovery"]["action"] == "memory_mib 100 → 100000; starts anew"
    assert "Requested node configuration is not available" in last["error"]["message"]


def test_a_worker_that_forgets_asks_for_the_same_attempt(node: Any) -> None:
    """It died after the next attempt was submitted, before its own checkpoint: that one is taken up."""
    job = start(
        node,
        HOG,
        "150",
        "2",
        on=("oom",),
        mortal=True,
    )
    job.until_state("running")
    chain = load_node(job.process.pid)
    checkpoint = chain.checkpoint

    job.fall_asleep(lambda: len(chain.called) == 2, "the second attempt to be submitted")
    chain.set_checkpoint(checkpoint)
    job.take_over()
    job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert len(chain.called) == 2
    assert [each["MinMemoryNode"] for each in attempts_in_slurm(job)] == ["100M", "200M"]
    assert [attempt for attempt, _ in causes(job)] == [1, 2]
