"""What the next attempt asks for: a pure function of command, policy and what ended before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_byoc.commands.recovery import Recovery
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.events import JobRecovery
from aiida_byoc.contracts.failures import FAILURES
from aiida_byoc.workflows.recovery import Ask, Ended, ask, refusal
from tests.builders import placement, submit, submit_body

EVERY = ["oom", "timeout", "node_fail", "preempted"]
RULES = Recovery(memory_factor=2, memory_ceiling_mib=1024, requeues=2)


def command(max_attempts: int = 10, on: list[str] = EVERY, **changes: Any) -> SubmitJobCommand:
    return submit(retry_policy={"max_attempts": max_attempts, "on": on}, **changes)


def checkpointing() -> SubmitJobCommand:
    workload = {**submit_body()["workload"], "checkpoint": {"seconds_before": 30}}
    return command(workload=workload)


def array(**policy: Any) -> SubmitJobCommand:
    workload = {"kind": "array", "image": "localhost/byoc/demo:1", "argv": ["x"]}
    return command(workload={**workload, "tasks": {"count": 9}}, **policy)


def ended(*codes: str) -> list[Ended]:
    return [Ended(code=code, message=f"It was {code}.") for code in codes]


def lost(*nodes: str, usable: tuple[str, ...] = ("n1", "n2", "n3")) -> Ended:
    return Ended(
        code="node_fail",
        message="A compute node failed.",
        nodes=nodes,
        usable=tuple(node for node in usable if node not in nodes),
    )


def follow(of: SubmitJobCommand, *before: Ended) -> Ask:
    where = placement(recovery=RULES)
    assert refusal(of, where, before) is None
    return ask(of, where, before)


def test_the_first_attempt_asks_for_what_the_command_says() -> None:
    assert ask(command(), placement(recovery=RULES), []) == Ask(number=1, memory_mib=256)


def test_tasks_that_failed_are_run_again_on_request() -> None:
    where = placement(recovery=RULES)

    assert refusal(array(on=["tasks_failed"]), where, ended("tasks_failed")) is None
    assert refusal(array(on=["oom"]), where, ended("tasks_failed")) == ""


def test_every_attempt_of_an_array_knows_all_the_earlier_ones() -> None:
    """Any of them may have brought a task to its end, whatever became of the attempt."""
    asked = ask(array(), placement(recovery=RULES), ended("node_fail", "oom"))

    assert asked.goes_on_from == (2, 1)
    assert asked.recovery is not None
    assert (
        asked.recovery["action"] == "memory_mib 256 → 512; runs the tasks that have not succeeded"
    )


@pytest.mark.parametrize("code", sorted(set(FAILURES) - {"tasks_failed"}))
def test_only_the_words_of_the_command_start_another_attempt(code: str) -> None:
    where, on = placement(recovery=RULES), FAILURES[code].on

    assert (refusal(command(), where, ended(code)) is None) is (on is not None)
    assert (refusal(command(on=[]), where, ended(code)) is None) is (on == "requeued")
    assert refusal(command(1), where, ended(code)) != (None if on != "requeued" else "")


def test_the_last_attempt_is_the_last() -> None:
    where = placement(recovery=RULES)

    assert refusal(command(3), where, ended("timeout", "timeout")) is None
    why = refusal(command(3), where, ended("timeout", "timeout", "preempted"))
    assert why == "this was the last of 3 attempts"


def test_an_attempt_after_one_out_of_memory_has_more() -> None:
    following = follow(command(), *ended("oom"))

    assert (following.number, following.memory_mib, following.goes_on_from) == (2, 512, ())
    assert following.recovery == {
        "attempt": 1,
        "code": "oom",
        "message": "It was oom.",
        "action": "memory_mib 256 → 512; starts anew",
    }


def test_memory_grows_up_to_the_ceiling_and_not_beyond() -> None:
    assert follow(command(), *ended("oom", "timeout")).memory_mib == 512
    assert follow(command(), *ended("oom", "oom")).memory_mib == 1024
    why = refusal(command(), placement(recovery=RULES), ended("oom", "oom", "oom"))
    assert why == "no further attempt, since its 1024 MiB are at the node's ceiling"


@pytest.mark.parametrize(
    ("factor", "ceiling", "expected"), [(1.5, 4096, 384), (1.001, 4096, 257), (1000.0, 300, 300)]
)
def test_factor_and_ceiling_are_the_policys(factor: float, ceiling: int, expected: int) -> None:
    rules = Recovery(memory_factor=factor, memory_ceiling_mib=ceiling)

    assert ask(command(), placement(recovery=rules), ended("oom")).memory_mib == expected


def test_a_job_accepted_before_there_were_rules_asks_for_the_same() -> None:
    assert refusal(command(), placement(), ended("oom")) is None
    assert ask(command(), placement(), ended("oom")).memory_mib == 256
    assert refusal(command(), placement(), ended("requeued")) is not None


def test_a_failed_node_is_avoided() -> None:
    following = follow(command(), lost("n2"))

    assert following.exclude == ("n2",)
    assert following.recovery is not None
    assert following.recovery["action"] == "not on n2; starts anew"


def test_every_node_that_failed_is_avoided_for_good() -> None:
    assert follow(command(), lost("n2"), lost("n1"), *ended("oom")).exclude == ("n1", "n2")


def test_of_several_nodes_those_that_cannot_be_used_have_failed() -> None:
    last = Ended(code="node_fail", message="", nodes=("n1", "n2"), usable=("n2", "n3", "n4"))
    two = command(resource_shape={"cpu": 1, "memory_mib": 256, "walltime_seconds": 60, "nodes": 2})

    assert follow(two, last).exclude == ("n1",)


@pytest.mark.parametrize("usable", [(), ("n1",)])
def test_no_node_is_avoided_where_none_would_be_left(usable: tuple[str, ...]) -> None:
    following = follow(command(), lost("n1", usable=usable))

    assert following.exclude == ()
    assert following.recovery is not None
    assert following.recovery["action"].startswith("no other node can be used")


@pytest.mark.parametrize(
    ("codes", "earlier"),
    [
        (["timeout"], (1,)),
        (["preempted", "timeout"], (2, 1)),
        (["requeued"], (1,)),
        (["oom"], ()),
        (["node_fail"], ()),
        (["timeout", "oom"], ()),
        (["timeout", "oom", "timeout"], (3,)),
        (["launch_refused"], ()),
        (["timeout", "launch_refused"], (1,)),
    ],
)
def test_an_attempt_goes_on_from_where_the_last_one_was_stopped(
    codes: list[str], earlier: tuple[int, ...]
) -> None:
    """After any other end it starts anew, and what comes later goes on from there."""
    assert follow(command(), *ended(*codes)).goes_on_from == earlier


def test_a_program_that_writes_checkpoints_always_goes_on() -> None:
    assert follow(checkpointing(), *ended("timeout", "oom", "node_fail")).goes_on_from == (3, 2, 1)


def test_requeues_do_not_count_as_attempts_but_are_bounded() -> None:
    where = placement(recovery=RULES)

    assert refusal(command(1, on=[]), where, ended("requeued", "requeued")) is None
    why = refusal(command(1, on=[]), where, ended("requeued", "requeued", "requeued"))
    assert why == "the node's policy allows 2 requeues"
    of_both = ended("requeued", "launch_refused", "launch_refused")
    assert refusal(command(1, on=[]), where, of_both[:2]) is None
    assert refusal(command(1, on=[]), where, of_both) == why
    assert refusal(command(2), where, ended("requeued", "timeout")) is None
    assert refusal(command(2), where, ended("requeued", "timeout", "timeout")) is not None


codes = st.lists(st.sampled_from([*EVERY, "boot_fail", "launch_refused", "requeued"]), max_size=12)


@given(codes, st.integers(1, 10), st.booleans())
def test_every_story_ends_within_its_bounds_and_is_told_in_words_of_the_contract(
    story: list[str], most: int, checkpoint: bool
) -> None:
    of = checkpointing() if checkpoint else command(most)
    where = placement(recovery=RULES)
    for count in range(1, len(story) + 1):
        before = ended(*story[:count])
        if refusal(of, where, before) is not None:
            break
        following = ask(of, where, before)
        assert following == ask(of, where, before)
        assert following.number == count + 1
        assert 256 <= following.memory_mib <= 1024
        assert following.number <= of.retry_policy.max_attempts + RULES.requeues
        JobRecovery.model_validate(following.recovery)
