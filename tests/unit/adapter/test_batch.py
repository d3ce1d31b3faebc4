"""Of a batch only what the product took is acknowledged, and a bad event stops its own job alone."""

from __future__ import annotations

import asyncio

import pytest

from adapter.auth import NodeIdentity
from adapter.convex import UpdatesRefusedError
from adapter.delivery import Delivery
from aiida_byoc.contracts import ProjectionOutcome
from aiida_byoc.contracts.problems import ProblemError

NODE = NodeIdentity("n1", frozenset({"acme", "globex"}), "key-1")
ONE, TWO = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "12")


class Product:
    """Answers like Convex: refuses calls with a poisoned update whole, rejects single ones by code."""

    def __init__(self, poison=(), rejected=(), down_after=None, broken=False):
        self.calls = []
        self._poison, self._rejected = set(poison), dict(rejected)
        self._down_after, self._broken = down_after, broken

    async def apply(self, node_id, updates):
        ids = [update.projection_id for update in updates]
        if self._down_after is not None and len(self.calls) >= self._down_after:
            raise ProblemError("product-unavailable")
        self.calls.append(ids)
        if self._broken or self._poison & set(ids):
            raise UpdatesRefusedError
        return [
            ProjectionOutcome(projection_id=name, outcome="rejected", code=self._rejected[name])
            if name in self._rejected
            else ProjectionOutcome(projection_id=name, outcome="applied")
            for name in ids
        ]

    async def answers(self, node_id):
        return not self._broken


def deliver(product, events):
    return asyncio.run(Delivery(product).deliver(NODE, events))


@pytest.fixture
def job(make_event):
    def make(submission, *seqs):
        return [
            make_event(seq, submission_id=submission, job_id=f"job-{submission[0]}") for seq in seqs
        ]

    return make


def test_what_the_product_took_is_acknowledged_per_job(job):
    product = Product()

    answer = deliver(product, [*job(ONE, 1, 2), *job(TWO, 5)])

    assert answer.next_seq == {ONE: 3, TWO: 6}
    assert answer.quarantined == []
    assert product.calls == [[f"{ONE}:1", f"{ONE}:2", f"{TWO}:5"]]


def test_a_gap_ends_what_is_sent_of_its_job(job):
    """No fault: the node sends the rest again from the gap."""
    product = Product()

    answer = deliver(product, [*job(ONE, 1, 3, 4), *job(TWO, 1)])

    assert answer.next_seq == {ONE: 2, TWO: 2}
    assert answer.quarantined == []
    assert product.calls == [[f"{ONE}:1", f"{TWO}:1"]]


FAULTS = {
    "of another node": ({"source": "/nodes/n2"}, "forbidden"),
    "of no known form": ({"specversion": "0.3"}, "validation-failed"),
    "that contradicts itself": ({"subject": "other"}, "validation-failed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_at_fault_is_quarantined_with_what_follows_it(fault, job):
    change, code = FAULTS[fault]
    good, bad, later = job(ONE, 1, 2, 3)
    product = Product()

    answer = deliver(product, [good, {**bad, **change}, *job(TWO, 1), later])

    assert answer.next_seq == {ONE: 2, TWO: 2}
    [quarantined] = answer.quarantined
    assert (quarantined.submission_id, quarantined.seq, quarantined.code) == (ONE, 2, code)
    assert product.calls == [[f"{ONE}:1", f"{TWO}:1"]]


def test_an_event_of_a_tenant_the_node_does_not_serve_is_quarantined(make_event):
    answer = deliver(Product(), [make_event(tenant_id="initech")])

    assert [event.code for event in answer.quarantined] == ["forbidden"]
    assert "initech" not in answer.model_dump_json()


@pytest.mark.parametrize(
    "raw", [None, 7, "x", [], {}, {"data": 7}, {"data": {"submission_id": []}}]
)
def test_junk_in_a_batch_is_reported_and_spoils_nothing(raw, job):
    answer = deliver(Product(), [raw, *job(ONE, 1)])

    assert answer.next_seq == {ONE: 2}
    [quarantined] = answer.quarantined
    assert quarantined.submission_id is None
    assert quarantined.code == "validation-failed"


def test_a_poisoned_update_is_found_by_halving_and_stops_its_own_job(job):
    events = [*job(ONE, 1, 2, 3), *job(TWO, 1, 2, 3)]
    product = Product(poison={f"{ONE}:2"})

    answer = deliver(product, events)

    assert answer.next_seq == {ONE: 2, TWO: 4}
    [quarantined] = answer.quarantined
    assert (quarantined.submission_id, quarantined.seq) == (ONE, 2)
    assert quarantined.code == "projection-refused"
    assert [f"{ONE}:3"] not in product.calls


def test_a_rejected_update_stops_its_own_job_with_the_products_code(job):
    answer = deliver(
        Product(rejected={f"{ONE}:2": "seq_conflict"}), [*job(ONE, 1, 2, 3), *job(TWO, 1)]
    )

    assert answer.next_seq == {ONE: 2, TWO: 2}
    assert [(event.seq, event.code) for event in answer.quarantined] == [(2, "seq_conflict")]


def test_while_the_product_is_down_nothing_is_acknowledged(job):
    """Not even a fault: what comes before it is not stored."""
    good, bad = job(ONE, 1, 2)

    with pytest.raises(ProblemError, match="product-unavailable"):
        deliver(Product(down_after=0), [good, {**bad, "source": "/nodes/n2"}])


def test_an_outage_in_the_middle_acknowledges_what_is_known(job):
    """The first half is stored, the second meets the outage; a fault behind it is not told yet."""
    first, fault = job(TWO, 3, 4)
    events = [*job(ONE, 1, 2), first, {**fault, "source": "/nodes/n2"}, *job("3" + ONE[1:], 1)]
    product = Product(poison={"3" + ONE[1:] + ":1"}, down_after=2)

    answer = deliver(product, events)

    assert answer.next_seq == {ONE: 3}
    assert answer.quarantined == []


def test_a_broken_function_is_an_outage_and_no_poison(job):
    """While the product is being deployed every call is refused: no job may be stopped for that."""
    with pytest.raises(ProblemError, match="product-unavailable"):
        deliver(Product(broken=True), [*job(ONE, 1), *job(TWO, 1)])


def test_what_the_product_lacks_is_passed_on_as_it_is_after_the_last_event_of_a_job(job):
    """I15: what a later event of the batch filled is no longer missing."""
    asks = {f"{ONE}:7": 2, f"{ONE}:8": 3, f"{TWO}:4": 1}

    class Restored(Product):
        async def apply(self, node_id, updates):
            outcomes = await super().apply(node_id, updates)
            return [
                each.model_copy(update={"missing_from": asks.get(each.projection_id)})
                for each in outcomes
            ]

    filled = deliver(Restored(), [*job(ONE, 7, 8), *job(TWO, 4, 5)])
    whole = deliver(Restored(), [*job(TWO, 4, 5)])

    assert filled.next_seq == {ONE: 9, TWO: 6}
    assert filled.missing_from == {ONE: 3}
    assert whole.missing_from is None


class Held(Product):
    """Lets no call end before it is told to, and knows how many there were at a time."""

    def __init__(self):
        super().__init__()
        self.open, self.entered = asyncio.Event(), asyncio.Semaphore(0)
        self.running, self.most = [], []

    async def apply(self, node_id, updates):
        self.running.append(node_id)
        self.most.append(sorted(self.running))
        self.entered.release()
        await self.open.wait()
        self.running.remove(node_id)
        return await super().apply(node_id, updates)


def test_a_node_may_have_a_bounded_number_of_batches_at_the_product(job):
    """Nodes do not wait for each other; what waits gets its turn."""
    product, other = Held(), NodeIdentity("n2", NODE.tenants, "key-2")
    theirs = [{**job(TWO, 1)[0], "source": "/nodes/n2"}]

    async def story():
        delivery = Delivery(product, in_flight=2)
        batches = [(NODE, job(ONE, seq)) for seq in (1, 2, 3)]
        batches.append((other, theirs))
        under_way = [asyncio.ensure_future(delivery.deliver(*batch)) for batch in batches]
        for _ in range(3):
            await product.entered.acquire()
        product.open.set()
        return await asyncio.gather(*under_way)

    answers = asyncio.run(asyncio.wait_for(story(), 30))

    assert [answer.next_seq for answer in answers] == [{ONE: 2}, {ONE: 3}, {ONE: 4}, {TWO: 2}]
    assert ["n1", "n1", "n2"] in product.most
    assert max(running.count("n1") for running in product.most) == 2


def test_who_gets_no_turn_in_time_is_sent_away_and_spoils_nothing(job):
    product = Held()

    async def story():
        delivery = Delivery(product, in_flight=1, patience=0.001)
        first = asyncio.ensure_future(delivery.deliver(NODE, job(ONE, 1)))
        await product.entered.acquire()
        with pytest.raises(ProblemError, match="product-unavailable"):
            await delivery.deliver(NODE, job(TWO, 1))
        product.open.set()
        await first
        return await delivery.deliver(NODE, job(TWO, 1))

    assert asyncio.run(asyncio.wait_for(story(), 30)).next_seq == {TWO: 2}
    assert product.calls == [[f"{ONE}:1"], [f"{TWO}:1"]]


def test_a_place_is_given_back_whatever_happens(job):
    delivery = Delivery(Product(down_after=0), in_flight=1, patience=0.001)

    async def story():
        for _ in range(3):
            with pytest.raises(ProblemError, match=r"product-unavailable: Retry after"):
                await delivery.deliver(NODE, job(ONE, 1))

    asyncio.run(story())
