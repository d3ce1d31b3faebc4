"""The relay against whatever may happen: lanes that die, batches lost and repeated, a product set back, a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events import redelivery, stream
from aiida_byoc.events.relay import BatchRefused, deliver
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, report
from tests.postgres.product import Lost, Product

JOBS = st.integers(min_value=0, max_value=3)
LANES = st.sampled_from(["one", "two"])


@dataclass(frozen=True)
class Fate:
    """What becomes of one batch, in the words of a fault proxy.

    Attributes:
        lost: `before` it reached the product, or `after`, when the answer is; `refused` unless it is one event.
        twice: the product gets it twice.
        nonsense: the answer speaks of what nobody asked for.
        overtaken: the other lane delivers while the batch is on its way.
        replayed: an operator sets this job back meanwhile.
    """

    lost: str | None = None
    twice: bool = False
    nonsense: int | None = None
    overtaken: bool = False
    replayed: int | None = None


FATES = st.builds(
    Fate,
    lost=st.sampled_from([None, None, "before", "after", "refused"]),
    twice=st.booleans(),
    nonsense=st.sampled_from([None, None, -1, 0, 10_000]),
    overtaken=st.booleans(),
    replayed=st.none() | JOBS,
)


class Wire:
    """Between relay and product."""

    def __init__(self, product: Product, fate: Fate, meanwhile: Callable[[], None]) -> None:
        self.product, self.fate, self.meanwhile = product, fate, meanwhile

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        self.meanwhile()
        if self.fate.lost == "before":
            raise Lost
        if self.fate.lost == "refused" and len(batch) > 1:
            raise BatchRefused("HTTP 413: too large", "payload-too-large")
        answer = self.product.events(batch)
        if self.fate.twice:
            answer = self.product.events(batch)
        if self.fate.lost == "after":
            raise Lost
        if self.fate.nonsense is not None:
            odd = dict.fromkeys(answer.next_seq, self.fate.nonsense)
            return Acknowledgement(next_seq={**odd, "nobody": 3}, missing_from={"nobody": 1})
        return answer


class RelayMachine(RuleBasedStateMachine):
    """Four jobs, two lanes, one product."""

    def __init__(self, connections: dict[str, psycopg.Connection]) -> None:
        super().__init__()
        self.connections = connections
        self.node = connections["node"]
        self.node.execute("TRUNCATE byoc.job, byoc.event, byoc.stream CASCADE")
        self.jobs = [accept(self.node, f"job-{number}") for number in range(4)]
        for job in self.jobs:
            report(self.node, job, "launched")
        self.told = dict.fromkeys(self.jobs, 2)
        self.attempts = dict.fromkeys(self.jobs, 1)
        self.product = Product()
        self.product.limit = 7

    @rule(job=JOBS, count=st.integers(min_value=1, max_value=30))
    def tell(self, job: int, count: int) -> None:
        submission = self.jobs[job]
        for _ in range(count):
            self.attempts[submission] += 1
            report(self.node, submission, "queued", attempt=self.attempts[submission])
            self.told[submission] += 1

    @rule(lane=LANES, fate=FATES)
    def relay(self, lane: str, fate: Fate) -> None:
        def meanwhile() -> None:
            if fate.overtaken:
                self._deliver("two" if lane == "one" else "one", self.product)
            if fate.replayed is not None:
                self.replay(fate.replayed)

        self._deliver(lane, Wire(self.product, fate, meanwhile))

    def _deliver(self, lane: str, sink: Any) -> None:
        try:
            deliver(self.connections[lane], sink, lane=lane)
        except Lost:
            return

    @rule(lane=LANES)
    def die(self, lane: str) -> None:
        """A lane is killed with jobs in its hands: nobody lets go of them."""
        stream.claim(self.connections[lane], lane)

    @rule(job=JOBS, kept=st.integers(min_value=0, max_value=40))
    def set_back(self, job: int, kept: int) -> None:
        """The product is restored from a backup; the next event of the job will show it.

        No draw may depend on what has arrived: back-off is random, and Hypothesis repeats its draws.
        """
        submission = self.jobs[job]
        newest = self.product.latest.get(submission, 0)
        if newest:
            self.product.restore(submission, min(kept, newest))
            self.tell(job, 1)

    @rule(job=JOBS)
    def replay(self, job: int) -> None:
        redelivery.replay(self.node, tenant="acme", job=f"job-{job}")

    @invariant()
    def nothing_is_forgotten_that_the_product_was_not_given(self) -> None:
        rows = self.node.execute(
            "SELECT submission_id::text, acked_seq, latest_seq FROM byoc.stream"
        ).fetchall()
        for submission, acked, latest in rows:
            assert latest == self.told[submission]
            arrived = {seq for seq, _ in self.product.arrived.get(submission, [])}
            assert set(range(1, acked + 1)) <= arrived

    def teardown(self) -> None:
        """Once nothing goes wrong any more the product has everything, each event under one id."""
        for _ in range(200):
            self.node.execute("UPDATE byoc.stream SET not_before = now()")
            settled = [
                deliver(self.connections[lane], self.product, lane=lane) for lane in ("one", "two")
            ]
            if not any(settled) and self._quiet():
                break
        for submission in self.jobs:
            assert self.product.have[submission] == set(range(1, self.told[submission] + 1))
            ids: dict[int, set[str]] = {}
            for seq, name in self.product.arrived[submission]:
                ids.setdefault(seq, set()).add(name)
            assert all(len(names) == 1 for names in ids.values())
            order = list(dict.fromkeys(self.product.order(submission)))
            assert order == sorted(order), "at first delivery, in the order of the job"

    def _quiet(self) -> bool:
        left = self.node.execute(
            "SELECT count(*) FROM byoc.stream WHERE acked_seq < latest_seq"
        ).fetchone()
        return left == (0,)


def test_i10_i11_i12_i15_the_product_ends_with_every_event_in_order(
    open_connection: Connect,
) -> None:
    connections = {name: open_connection() for name in ("node", "one", "two")}
    run_state_machine_as_test(
        lambda: RelayMachine(connections),
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
