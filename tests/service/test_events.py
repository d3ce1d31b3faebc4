"""Events are acknowledged only after the product has them, in order, and one job's poison is its own."""

from __future__ import annotations

from uuid import uuid4

import jwt
import pytest

from tests.service.events import BATCH, event
from tests.service.node import PROBLEMS


def unavailable(response) -> bool:
    return (response.status_code, response.json()["type"]) == (
        503,
        PROBLEMS + "product-unavailable",
    ) and int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("content_type", [BATCH, "application/json"])
def test_a_batch_is_acknowledged_per_job_once_the_product_has_it(
    content_type, deliver, convex, job
):
    other = str(uuid4())

    response = deliver([event(job, 1), event(other, 4), event(job, 2)], content_type)

    assert response.json() == {
        "next_seq": {job: 3, other: 5},
        "quarantined": [],
        "missing_from": {other: 1},
    }
    assert convex.stored[-3:] == [f"{job}:1", f"{other}:4", f"{job}:2"]


def test_the_product_sees_the_service_acting_for_this_node(deliver, convex, job):
    deliver([event(job, 1)])

    claims = jwt.decode(convex.tokens[-1], options={"verify_signature": False})
    assert (claims["sub"], claims["node_id"]) == ("adapter", "n1")


@pytest.mark.parametrize("fault", ["503", "429"])
def test_while_the_product_is_unavailable_nothing_is_acknowledged(fault, deliver, convex, job):
    convex.faults.append(fault)

    assert unavailable(deliver([event(job, 1)]))
    assert f"{job}:1" not in convex.stored
    assert deliver([event(job, 1)]).json()["next_seq"] == {job: 2}


def test_a_lost_reply_is_repeated_and_stored_once(deliver, convex, job):
    """The product committed and the answer was lost: the repetition is a duplicate, and acknowledged."""
    convex.faults.append("lost-reply")

    assert deliver([event(job, 1)]).json()["next_seq"] == {job: 2}
    assert convex.stored.count(f"{job}:1") == 1


def test_two_resets_are_an_outage(deliver, convex, job):
    convex.faults.extend(["reset", "reset"])

    assert unavailable(deliver([event(job, 1)]))


def test_a_refused_token_is_renewed_once(deliver, convex, job):
    convex.faults.append("401")
    assert deliver([event(job, 1)]).json()["next_seq"] == {job: 2}

    convex.faults.extend(["401", "401"])
    assert unavailable(deliver([event(job, 2)]))


def test_a_poisoned_event_stops_its_own_job_only(deliver, convex, job):
    other = str(uuid4())
    convex.poison.add(f"{job}:2")
    events = [event(job, seq) for seq in (1, 2, 3)] + [event(other, seq) for seq in (1, 2, 3)]

    response = deliver(events)

    assert response.json()["next_seq"] == {job: 2, other: 4}
    [quarantined] = response.json()["quarantined"]
    assert (quarantined["submission_id"], quarantined["seq"]) == (job, 2)
    assert quarantined["code"] == "projection-refused"
    assert f"{job}:3" not in convex.stored


def test_the_products_rejection_is_told_with_its_code(deliver, convex, job):
    convex.projections.rejected[f"{job}:1"] = "seq_conflict"

    response = deliver([event(job, 1), event(job, 2)])

    assert response.json()["next_seq"] == {}
    assert [item["code"] for item in response.json()["quarantined"]] == ["seq_conflict"]


def test_a_node_reports_only_its_own_events_of_its_own_tenants(deliver, convex, job):
    foreign, stranger = str(uuid4()), str(uuid4())
    events = [
        {**event(foreign, 1), "source": "/nodes/n2"},
        event(stranger, 1, tenant_id="initech"),
        event(job, 1),
    ]

    response = deliver(events)

    assert response.json()["next_seq"] == {job: 2}
    assert [item["code"] for item in response.json()["quarantined"]] == ["forbidden", "forbidden"]
    assert not {f"{foreign}:1", f"{stranger}:1"} & set(convex.stored)


@pytest.mark.parametrize("events", [[], {}, "x", [event(str(uuid4()), 1)] * 101])
def test_what_is_no_batch_is_refused(events, deliver, convex):
    stored = len(convex.stored)

    response = deliver(events)

    assert (response.status_code, response.json()["type"]) == (422, PROBLEMS + "validation-failed")
    assert len(convex.stored) == stored


def test_a_batch_beyond_its_size_is_refused(deliver):
    assert deliver(["x" * (8 * 1024 * 1024)]).status_code == 413


HEARTBEAT = {"sent_at": "2026-02-15T10:00:00Z", "versions": {"aiida-core": "2.9.4"}}


def test_a_heartbeat_reaches_the_product_and_survives_its_absence(http, keys, convex):
    headers = {"Authorization": f"Bearer {keys.node('n1')}"}

    first = http.post("/v1/nodes/n1/heartbeat", json=HEARTBEAT, headers=headers)
    reported = len(convex.heartbeats)
    convex.faults.append("503")
    second = http.post("/v1/nodes/n1/heartbeat", json=HEARTBEAT, headers=headers)

    assert first.status_code == second.status_code == 200
    assert convex.heartbeats[-1]["received_at"] == first.json()["received_at"]
    assert convex.heartbeats[-1]["report"]["versions"] == {"aiida-core": "2.9.4"}
    assert len(convex.heartbeats) == reported
