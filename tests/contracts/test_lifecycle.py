"""Every state against every state."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from aiida_byoc.contracts.lifecycle import (
    PRODUCT_STATE,
    SUCCESSORS,
    TERMINAL,
    ExecutionState,
    ProductState,
    may_follow,
)

MAY_FOLLOW = {
    # what may follow as it is …
    "accepted": {"launched", "cancelled", "failed"},
    "launched": {"queued", "held", "cancelled", "failed"},
    "queued": {"running", "succeeded", "held", "cancelled", "failed"},
    "running": {"succeeded", "held", "cancelled", "failed"},
    "held": {"succeeded", "cancelled", "failed"},
    "succeeded": set(),
    "failed": set(),
    "cancelled": set(),
}
WITH = {
    # … and what brings something new
    ("queued", "queued"): {"new_attempt", "new_place"},
    ("running", "queued"): {"new_attempt"},
    ("running", "running"): {"new_progress"},
}
NEWS = ("new_attempt", "new_place", "new_progress")
BACK_FROM_HELD = {"launched", "queued", "running"}
PAIRS = list(product(ExecutionState, ExecutionState))


@pytest.mark.parametrize(("current", "following"), PAIRS)
@pytest.mark.parametrize(
    "news", [set(combination) for size in range(4) for combination in combinations(NEWS, size)]
)
@pytest.mark.parametrize("held_from", [None, *ExecutionState])
def test_every_state_against_every_state(current, following, news, held_from):
    expected = (
        following in MAY_FOLLOW[current]
        or bool(news & WITH.get((current, following), set()))
        or (current == "held" and following in BACK_FROM_HELD and following == held_from)
    )

    found = may_follow(
        current,
        following,
        held_from=held_from,
        **dict.fromkeys(news, True),
    )

    assert found is expected


def test_terminal_states_absorb():
    assert {state for state in ExecutionState if not SUCCESSORS[state]} == TERMINAL
    assert {"succeeded", "failed", "cancelled"} == TERMINAL


def test_every_state_is_reached_from_accepted_and_can_end():
    reached, waiting = {ExecutionState.ACCEPTED}, [ExecutionState.ACCEPTED]
    while waiting:
        new = SUCCESSORS[waiting.pop()] - reached
        reached |= new
        waiting += new

    assert reached == set(ExecutionState)
    assert all(SUCCESSORS[state] & TERMINAL for state in set(ExecutionState) - TERMINAL)


def test_a_job_too_short_to_be_seen_running_succeeds_from_queued():
    assert may_follow(ExecutionState.QUEUED, ExecutionState.SUCCEEDED)


def test_users_see_a_state_for_every_state():
    assert set(PRODUCT_STATE) == set(ExecutionState)
    assert set(PRODUCT_STATE.values()) == set(ProductState)
    assert {PRODUCT_STATE[state] for state in TERMINAL} == {
        ProductState.SUCCEEDED,
        ProductState.FAILED,
        ProductState.CANCELLED,
    }


def test_users_see_an_end_only_when_there_is_one():
    ends = {PRODUCT_STATE[state] for state in TERMINAL}

    assert all(PRODUCT_STATE[state] not in ends for state in set(ExecutionState) - TERMINAL)
