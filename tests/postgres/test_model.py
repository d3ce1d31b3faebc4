"""A small model of submit, repetition, cancel, launch, end and crash: searched whole, and the ledger held to it.

Every state the model can reach, and every action in it with every way it may turn out, is played on the real ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import psycopg
import pytest

from aiida_byoc.commands import ledger
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import KEY, NOW, cancel, placement, submit
from tests.postgres.jobs import report, served
from tests.postgres.reading import row, states

ORDERS = {"order": (KEY, 1), "other payload": (KEY, 2), "other key": (f"{KEY}-2", 1)}
"""Name of a submission of the one job: its key and what it asks for (processors)."""

ACTIONS = (*ORDERS, "cancel", "launch", "succeed", "stop")
OUTCOMES = ("answered", "answer lost", "crashed")
"""An action commits and says so, commits and dies before it says so, or dies before it commits."""

TERMINAL = {"succeeded", "cancelled"}
REFUSED = "cancelled before it came"
NOTHING = "nothing to do"
MAKES: dict[tuple[str, str | None], tuple[tuple[str, ...], str]] = {
    ("cancel", None): ((), "cancelled"),
    ("cancel", "accepted"): (("cancelled",), "cancelled"),
    ("cancel", "launched"): ((), "cancelling"),
    ("cancel", "cancelled"): ((), "cancelled"),
    ("cancel", "succeeded"): ((), "already_ended"),
    ("launch", "accepted"): (("launched",), "done"),
    ("succeed", "launched"): (("queued", "succeeded"), "done"),
    ("stop", "launched"): (("cancelled",), "done"),
}
"""Action and state → the events it makes, and its answer."""


@dataclass(frozen=True)
class Model:
    """All there is to know of the one job.

    Attributes:
        claim: the order that was accepted, or `REFUSED` for the tombstone of a cancel that came first.
        told: its events.
        chains: how many work chains were made for it.
        is_cancelled: whether a cancel was recorded.
    """

    claim: str | None = None
    told: tuple[str, ...] = ()
    chains: int = 0
    is_cancelled: bool = False

    @property
    def state(self) -> str | None:
        return self.told[-1] if self.told else None


def answer_to_order(model: Model, name: str) -> str:
    key, _ = ORDERS[name]
    if model.claim is None:
        return "accepted"
    if model.claim == REFUSED:
        return "job-cancelled"
    if model.claim == name:
        return "replayed"
    return "idempotency-key-reused" if ORDERS[model.claim][0] == key else "job-id-conflict"


def act(model: Model, action: str) -> tuple[Model, str]:
    """What an action makes of the job, and what it answers."""
    if action in ORDERS:
        answer = answer_to_order(model, action)
        if answer == "accepted":
            return replace(model, claim=action, told=("accepted",)), answer
        return model, answer
    if action == "stop" and not model.is_cancelled:
        return model, NOTHING
    events, answer = MAKES.get((action, model.state), ((), NOTHING))
    after = replace(model, told=(*model.told, *events))
    if action == "cancel":
        after = replace(after, claim=model.claim or REFUSED, is_cancelled=True)
    if action == "launch" and events:
        after = replace(after, chains=model.chains + 1)
    return after, answer


def search() -> dict[Model, tuple[str, ...]]:
    """Every state the model can reach, breadth first, and the shortest way there."""
    ways: dict[Model, tuple[str, ...]] = {Model(): ()}
    unseen = [Model()]
    for model in unseen:
        for action in ACTIONS:
            following, _ = act(model, action)
            if following not in ways:
                ways[following] = (*ways[model], action)
                unseen.append(following)
    return ways


WAYS = search()


def steps() -> Iterator[tuple[Model, str, Model, str]]:
    for model in WAYS:
        for action in ACTIONS:
            following, answer = act(model, action)
            yield model, action, following, answer


def test_i1_i4_i6_i13_the_model_keeps_what_we_promise() -> None:
    """In every state, and from every state to the next."""
    for before, action, after, _ in steps():
        assert after.chains <= 1
        assert after.told[: len(before.told)] == before.told
        if before.state in TERMINAL:
            assert after.told == before.told, (before, action)
        if before.is_cancelled and not before.chains:
            assert not after.chains, (before, action)
        for name in ORDERS:
            if before.claim is not None:
                assert answer_to_order(after, name) == answer_to_order(before, name)
        if before.is_cancelled and before.state != "launched":
            assert act(before, "cancel")[1] == act(after, "cancel")[1]


class Node:
    """The real ledger, driven by the model's actions; the clock goes on with each."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.now = NOW
        connection.execute("TRUNCATE byoc.job CASCADE")
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS chain (submission uuid)")
        connection.execute("TRUNCATE chain")

    def act(self, action: str, outcome: str = "answered") -> str | None:
        self.now += timedelta(seconds=1)
        try:
            with self.connection.transaction(force_rollback=outcome == "crashed"):
                answer = self._act(action)
        except ProblemError as problem:
            answer = problem.kind.name
        return answer if outcome == "answered" else None

    def _act(self, action: str) -> str:
        if action in ORDERS:
            return self._order(action)
        if action == "cancel":
            return self._cancel()
        if action == "launch":
            return self._launch()
        told = ["queued", "succeeded"] if action == "succeed" else ["cancelled"]
        kept = row(self.connection)
        if kept is None or kept["state"] != "launched":
            return NOTHING
        if action == "stop" and kept["cancel_requested_at"] is None:
            return NOTHING
        for state in told:
            report(self.connection, str(kept["submission_id"]), state)
        return "done"

    def _order(self, name: str) -> str:
        key, cpu = ORDERS[name]
        shape = {"cpu": cpu, "memory_mib": 256, "walltime_seconds": 60}
        acceptance, replayed = ledger.accept(
            self.connection,
            submit(resource_shape=shape),
            key,
            place=lambda _: placement(),
            now=self.now,
        )
        kept = row(self.connection)
        assert kept is not None
        assert acceptance.submission_id == str(kept["submission_id"])
        assert acceptance.accepted_at == kept["accepted_at"]
        return "replayed" if replayed else "accepted"

    def _cancel(self) -> str:
        before = row(self.connection)
        cancellation, repeated = ledger.cancel(
            self.connection, cancel(), serve=served, now=self.now
        )
        first = before["cancel_requested_at"] if before else None
        assert (cancellation.requested_at, repeated) == (first or self.now, first is not None)
        return cancellation.status

    def _launch(self) -> str:
        job = next_job(self.connection, Limits())
        if job is None:
            return NOTHING
        self.connection.execute("INSERT INTO chain VALUES (%s)", (job["submission_id"],))
        assert report(self.connection, str(job["submission_id"]), "launched") is not None
        return "done"

    def read(self) -> Model:
        """The ledger in the words of the model."""
        count = self.connection.execute(
            "SELECT (SELECT count(*) FROM byoc.job), (SELECT count(*) FROM chain)"
        ).fetchone()
        assert count is not None
        kept = row(self.connection)
        assert count[0] == (kept is not None)
        if kept is None:
            return Model(chains=count[1])
        claim = REFUSED
        if kept["idempotency_key"] is not None:
            asked = (kept["idempotency_key"], kept["command"]["resource_shape"]["cpu"])
            (claim,) = [name for name, order in ORDERS.items() if order == asked]
        told = tuple(states(self.connection, str(kept["submission_id"])))
        assert kept["seq"] == len(told)
        return Model(claim, told, count[1], kept["cancel_requested_at"] is not None)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_i1_i4_i6_i9_i13_the_ledger_does_as_the_model(
    connection: psycopg.Connection, outcome: str
) -> None:
    """Whatever was lost, the repetition of the action hears what the model says."""
    for before, action, after, answer in steps():
        node = Node(connection)
        for done in WAYS[before]:
            node.act(done)
        assert node.read() == before

        heard = node.act(action, outcome)

        reached = before if outcome == "crashed" else after
        assert node.read() == reached, (WAYS[before], action)
        assert heard == (answer if outcome == "answered" else None), (WAYS[before], action)
        again, answer_again = act(reached, action)
        assert (node.act(action), node.read()) == (answer_again, again), (WAYS[before], action)
