"""A projection is a pure function of one event."""

from __future__ import annotations

import pytest

from adapter.projection import project
from aiida_byoc.contracts import ExecutionEvent, ExecutionState
from aiida_byoc.contracts.validation import validated

SHOWN = {
    "accepted": ("queued", None),
    "launched": ("queued", None),
    "queued": ("queued", None),
    "running": ("running", None),
    "held": ("attention", "transport down"),
    "succeeded": ("succeeded", None),
    "failed": ("failed", "exit 3"),
    "cancelled": ("cancelled", None),
}


def test_the_table_knows_every_state():
    assert set(SHOWN) == {state.value for state in ExecutionState}


@pytest.mark.parametrize("state", SHOWN)
def test_a_state_is_shown_as_users_know_it(state, make_event):
    """Every execution state has its product state, and the message that explains it."""
    update = project(validated(ExecutionEvent, make_event(7, state))).wire()

    shown, message = SHOWN[state]
    assert (update["state"], update["execution_state"]) == (shown, state)
    assert update.get("message") == message


def test_an_update_carries_all_that_the_event_says(make_event):
    """What the event does not say stays absent: Convex tells a missing field from null."""
    facts = {
        "execution_id": "22222222-2222-4222-8222-222222222222",
        "epoch": "0123456789abcdef",
        "image": {"reference": "registry.example/tool:1", "digest": "sha256:" + "c" * 64},
        "scheduler": {"job_id": "17", "queue": "main", "nodes": ["c1"]},
        "timings": {"accepted": "2026-02-15T09:59:00.000Z"},
        "progress": {
            "fraction": 0.5,
            "step": 5,
            "steps": 10,
            "message": "half way",
            "metrics": {"loss": 0.25},
            "reported_at": "2026-02-15T09:59:30.000Z",
        },
        "result": {
            "exit_code": 0,
            "outputs": [{"name": "out.txt", "size": 3, "sha256": "b" * 64}],
            "usage": {"cpu_seconds": 1.5},
        },
        "recovery": {
            "attempt": 1,
            "code": "oom",
            "message": "The job ran out of memory.",
            "action": "memory_mib 512 → 1024; starts anew",
        },
    }
    event = make_event(5, "succeeded", **facts)

    update = project(validated(ExecutionEvent, event)).wire()

    assert update == {
        **facts,
        "schema_version": "1",
        "projection_id": "11111111-1111-4111-8111-111111111111:5",
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": "job-1",
        "node_id": "n1",
        "seq": 5,
        "state": "succeeded",
        "execution_state": "succeeded",
        "attempt": 1,
        "occurred_at": "2026-02-15T10:00:05.000Z",
        "trace_id": "a" * 32,
    }


def test_the_same_event_gives_the_same_update(make_event):
    event = validated(ExecutionEvent, make_event(3, "running"))

    assert project(event) == project(event)
