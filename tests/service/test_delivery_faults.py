"""Between adapter and product anything may be lost, late or double: each event is stored once, and so acknowledged."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.service.events import BATCH, event
from tests.service.node import PROBLEMS

ONE, TWO = "aaaaaaaaaaaaaaaa", "5555555555555555"
PATIENCE = 30


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix(PROBLEMS)


def test_what_the_product_lacks_is_asked_for_until_it_has_it(deliver, convex, job):
    """I15: the product was restored from a backup; the node goes on, hears of it, and goes back."""
    deliver([event(job, seq) for seq in (1, 2)])

    ahead = deliver([event(job, seq) for seq in (5, 6)])
    back = deliver([event(job, 3)])
    filled = deliver([event(job, 4), event(job, 5), event(job, 6)])

    assert (ahead.json()["next_seq"], ahead.json()["missing_from"]) == ({job: 7}, {job: 3})
    assert back.json()["missing_from"] == {job: 4}
    assert "missing_from" not in filled.json()
    assert sorted(name for name in convex.stored if job in name) == [
        f"{job}:{n}" for n in range(1, 7)
    ]


def test_a_history_that_the_product_does_not_know_is_refused_until_an_operator_decides(
    deliver, convex, job
):
    """I16: neither applied nor quarantined nor taken for an outage."""
    other = str(uuid4())
    deliver([event(job, 1, epoch=ONE)])
    batch = [event(other, 1, epoch=ONE), event(job, 2, epoch=TWO)]

    refused = deliver(batch)

    assert problem(refused) == (409, "epoch-mismatch")
    assert refused.json()["retry"] is False
    assert not {f"{other}:1", f"{job}:2"} & set(convex.stored)
    convex.projections.accept("n1", TWO)
    assert deliver(batch).json()["next_seq"] == {other: 2, job: 3}


@pytest.mark.parametrize(("asked", "told"), [("429 7", "7"), ("503 40", "40"), ("503 9999", "300")])
def test_the_pause_that_the_product_asks_for_reaches_the_node(asked, told, deliver, convex, job):
    convex.faults.append(asked)

    response = deliver([event(job, 1)])

    assert problem(response) == (503, "product-unavailable")
    assert response.headers["Retry-After"] == told


def test_an_answer_lost_twice_is_an_outage_for_the_node_and_a_repetition_for_the_product(
    deliver, convex, job
):
    convex.faults.extend(["lost-reply", "lost-reply"])
    batch = [event(job, 1), event(job, 2)]

    assert problem(deliver(batch)) == (503, "product-unavailable")
    assert deliver(batch).json() == {"next_seq": {job: 3}, "quarantined": []}
    assert [name for name in convex.stored if job in name] == [f"{job}:1", f"{job}:2"]


def test_a_product_that_takes_too_long_holds_nobody_for_ever(
    own_adapter, monkeypatch, keys, convex, job
):
    monkeypatch.setenv("BYOC_ADAPTER_CONVEX__TIMEOUT_SECONDS", "0.5")
    adapter = own_adapter()
    convex.faults.append("slow")

    refused = send(adapter, keys, [event(job, 1)])
    convex.go_on.set()

    assert problem(refused) == (503, "product-unavailable")
    assert send(adapter, keys, [event(job, 1)]).json()["next_seq"] == {job: 2}
    assert convex.stored.count(f"{job}:1") == 1


def test_killed_after_the_product_committed_the_repetition_is_acknowledged(
    own_adapter, keys, convex, job
):
    adapter = own_adapter()
    convex.faults.append("slow")
    batch = [event(job, 1), event(job, 2, state="succeeded", result={"exit_code": 0})]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, adapter, keys, batch)
        assert convex.entered.acquire(timeout=PATIENCE)
        adapter.stop(signal.SIGKILL)
        assert isinstance(first.exception(PATIENCE), httpx.TransportError)
    adapter.start()
    again = send(adapter, keys, batch)

    assert again.json() == {"next_seq": {job: 3}, "quarantined": []}
    assert [name for name in convex.stored if job in name] == [f"{job}:1", f"{job}:2"]


def test_a_batch_that_comes_too_late_changes_nothing_that_came_since(adapter, keys, convex, job):
    """The node gave it up and sent its events anew; it arrives all the same, when the job has ended."""
    convex.faults.append("late")
    end = event(job, 4, state="succeeded", result={"exit_code": 0})
    with ThreadPoolExecutor(1) as pool:
        given_up = pool.submit(send, adapter, keys, [event(job, 1), event(job, 2)])
        assert convex.entered.acquire(timeout=PATIENCE)

        anew = send(adapter, keys, [event(job, 1), event(job, 2), event(job, 3), end])
        told = list(convex.stored)
        convex.go_on.set()

    assert anew.json() == {"next_seq": {job: 5}, "quarantined": []}
    assert given_up.result().json() == {"next_seq": {job: 3}, "quarantined": []}
    assert convex.stored == told
    assert send(adapter, keys, [end]).json() == {"next_seq": {job: 5}, "quarantined": []}


def test_what_overtakes_is_stored_and_asks_for_what_it_overtook(adapter, keys, convex, job):
    convex.faults.append("late")
    with ThreadPoolExecutor(1) as pool:
        overtaken = pool.submit(send, adapter, keys, [event(job, 1), event(job, 2)])
        assert convex.entered.acquire(timeout=PATIENCE)
        ahead = send(adapter, keys, [event(job, 3)])
        convex.go_on.set()

    assert ahead.json()["missing_from"] == {job: 1}
    assert overtaken.result().json() == {"next_seq": {job: 3}, "quarantined": []}
    again = send(adapter, keys, [event(job, 3)])
    assert again.json() == {"next_seq": {job: 4}, "quarantined": []}


def test_the_same_batch_from_eight_sides_at_once_is_stored_once(adapter, keys, convex, job):
    """More than may be at the product at a time: all get their turn."""
    batch = [event(job, seq) for seq in range(1, 21)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(adapter, keys, batch), range(8)))

    assert [answer.json() for answer in answers] == [{"next_seq": {job: 21}, "quarantined": []}] * 8
    assert sorted(name for name in convex.stored if job in name) == sorted(
        f"{job}:{seq}" for seq in range(1, 21)
    )


def send(adapter, keys, events) -> httpx.Response:
    headers = {"Authorization": f"Bearer {keys.node('n1')}", "Content-Type": BATCH}
    url = f"{adapter.url}/v1/nodes/n1/events"
    return httpx.post(url, json=events, headers=headers, timeout=PATIENCE, trust_env=False)
