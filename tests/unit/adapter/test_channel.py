"""Commands reach the node at least once, verdicts their caller at most once, and nothing is kept."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from adapter import channel as channel_module
from adapter.channel import Channel
from aiida_byoc.contracts import Command, JobAcceptance, JobView, LogChunk, Verdict
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import golden


def channel(**times: float) -> Channel:
    return Channel(**{"verdict_timeout": 5, "redelivery": 5, "presence": 5, **times})


def command(job_id: str = "job-1", operation: str = "submit") -> Command:
    return Command(command_id=str(uuid4()), operation=operation, tenant_id="acme", job_id=job_id)


def accepted(order: Command, node_id: str = "n1", job_id: str | None = None) -> Verdict:
    acceptance = {
        "job_id": job_id or order.job_id,
        "submission_id": str(uuid4()),
        "node_id": node_id,
        "accepted_at": "2026-02-15T10:00:00Z",
        "trace_id": "a" * 32,
    }
    return Verdict(outcome="accepted", acceptance=validated(JobAcceptance, acceptance))


async def refused(awaitable) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await awaitable
    return caught.value


def test_a_command_reaches_the_poll_that_waits_and_its_verdict_the_caller():
    async def story():
        link, order = channel(), command()
        poll = asyncio.create_task(link.poll("n1", wait=5, most=1))
        await asyncio.sleep(0)
        caller = asyncio.create_task(link.submit("n1", order))

        assert await poll == [order]
        verdict = accepted(order)
        assert link.settle("n1", order.command_id, verdict) == order
        assert await caller == verdict

    asyncio.run(story())


def test_a_node_that_never_came_is_unreachable_at_once():
    """Nothing is kept: a poll that comes later gets nothing."""

    async def story():
        link = channel()
        error = await refused(link.submit("n1", command()))

        assert error.kind.name == "node-unreachable"
        assert await link.poll("n1", wait=0, most=1) == []

    asyncio.run(story())


def test_presence_ends_after_its_time_but_not_while_a_poll_is_open():
    async def story():
        now = [0.0]
        link = Channel(verdict_timeout=0.01, redelivery=5, presence=45, clock=lambda: now[0])
        link.touch("n1")
        now[0] = 45.0
        assert (await refused(link.submit("n1", command()))).detail  # waits: the node is there
        now[0] = 46.0
        started = asyncio.get_running_loop().time()
        error = await refused(link.submit("n1", command()))
        assert error.kind.name == "node-unreachable"
        assert asyncio.get_running_loop().time() - started < 0.01

        poll = asyncio.create_task(link.poll("n1", wait=1000, most=1))
        await asyncio.sleep(0)
        now[0] = 500.0
        assert (await refused(link.submit("n1", order := command()))).kind.name == "outcome-unknown"
        assert await poll == [order]

    asyncio.run(story())


def test_an_unanswered_command_is_handed_out_again():
    """The poll that took it may have died with its connection."""

    async def story():
        link, order = channel(redelivery=0.02), command()
        link.touch("n1")
        caller = asyncio.create_task(link.submit("n1", order))
        await asyncio.sleep(0)

        assert await link.poll("n1", wait=0, most=1) == [order]
        assert await link.poll("n1", wait=0, most=1) == []
        assert await link.poll("n1", wait=5, most=1) == [order]
        link.settle("n1", order.command_id, accepted(order))
        assert (await caller).outcome == "accepted"
        assert await link.poll("n1", wait=0.03, most=1) == []

    asyncio.run(story())


def test_a_cancelled_poll_swallows_nothing():
    async def story():
        link, order = channel(), command()
        gone = asyncio.create_task(link.poll("n1", wait=5, most=1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        caller = asyncio.create_task(link.submit("n1", order))
        await asyncio.sleep(0)

        assert await link.poll("n1", wait=0, most=1) == [order]
        caller.cancel()

    asyncio.run(story())


def test_without_verdict_the_outcome_is_unknown_only_if_the_node_saw_the_command():
    async def story():
        link = channel(verdict_timeout=0.02)
        link.touch("n1")
        unseen = await refused(link.submit("n1", command()))
        caller = asyncio.create_task(link.submit("n1", order := command()))
        assert await link.poll("n1", wait=1, most=1) == [order]
        seen = await refused(caller)

        assert unseen.kind.name == "node-unreachable"
        assert seen.kind.name == "outcome-unknown"
        late = await refused(_settle(link, order))
        assert late.kind.name == "not-found"

    async def _settle(link, order):
        link.settle("n1", order.command_id, accepted(order))

    asyncio.run(story())


def test_only_the_node_that_was_asked_can_answer():
    """Another node, another job, another operation, another tenant: the caller keeps waiting."""

    async def story():
        link, order = channel(), command()
        link.touch("n1")
        caller = asyncio.create_task(link.submit("n1", order))
        await link.poll("n1", wait=1, most=1)

        with pytest.raises(ProblemError, match="not-found"):
            link.settle("n2", order.command_id, accepted(order))
        for verdict in (
            accepted(order, node_id="n2"),
            accepted(order, job_id="job-2"),
            Verdict(outcome="answered"),
            Verdict(outcome="rejected"),
        ):
            with pytest.raises(ProblemError, match="validation-failed"):
                link.settle("n1", order.command_id, verdict)
        assert not caller.done()
        link.settle("n1", order.command_id, accepted(order))
        link.settle("n1", order.command_id, accepted(order))  # a second delivery, answered too
        assert (await caller).outcome == "accepted"

    asyncio.run(story())


def test_a_node_cannot_show_one_tenant_the_job_of_another(make_event):
    async def story():
        link, order = channel(), command(operation="inspect")
        link.touch("n1")
        caller = asyncio.create_task(link.submit("n1", order))
        await link.poll("n1", wait=1, most=1)

        def view(tenant_id: str) -> Verdict:
            job = make_event(tenant_id=tenant_id)["data"]
            content = {"node_id": "n1", "job": job, "delivered_seq": 1}
            return Verdict(outcome="answered", job=validated(JobView, content))

        with pytest.raises(ProblemError, match="validation-failed"):
            link.settle("n1", order.command_id, view("globex"))
        link.settle("n1", order.command_id, view("acme"))
        assert (await caller).job.job.tenant_id == "acme"

    asyncio.run(story())


def test_only_a_node_that_says_so_is_asked_for_logs():
    """One that is older would not understand the whole batch."""

    async def story():
        link, order = channel(), command(operation="logs")
        link.touch("n1")
        error = await refused(link.submit("n1", order))
        await link.poll("n1", wait=0, most=1, operations=["logs"])
        caller = asyncio.create_task(link.submit("n1", order))
        await asyncio.sleep(0)

        assert error.kind.name == "operation-unsupported"
        assert await link.poll("n1", wait=0, most=1, operations=["logs"]) == [order]
        caller.cancel()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"tenant_id": "globex"}, False),
        ({"job_id": "job-2"}, False),
        ({"node_id": "n2"}, False),
    ],
)
def test_a_node_cannot_show_one_tenant_the_log_of_another(changes, fits):
    async def story():
        link, order = channel(), command(operation="logs")
        await link.poll("n1", wait=0, most=1, operations=["logs"])
        caller = asyncio.create_task(link.submit("n1", order))
        await asyncio.sleep(0)
        names = {"node_id": "n1", "tenant_id": "acme", "job_id": "job-1", **changes}
        log = validated(LogChunk, {**golden("log-chunk.text"), **names})

        if fits:
            link.settle("n1", order.command_id, Verdict(outcome="answered", log=log))
            assert (await caller).log == log
            return
        with pytest.raises(ProblemError, match="validation-failed"):
            link.settle("n1", order.command_id, Verdict(outcome="answered", log=log))
        caller.cancel()

    asyncio.run(story())


def test_commands_leave_in_the_order_they_came_and_no_more_than_wanted():
    async def story():
        link, orders = channel(), [command(f"job-{number}") for number in range(5)]
        link.touch("n1")
        callers = []
        for order in orders:
            callers.append(asyncio.create_task(link.submit("n1", order)))
            await asyncio.sleep(0)

        assert await link.poll("n1", wait=0, most=3) == orders[:3]
        assert await link.poll("n1", wait=0, most=3) == orders[3:]
        for caller in callers:
            caller.cancel()

    asyncio.run(story())


def test_many_polls_share_the_commands():
    async def story():
        link, orders = channel(), [command(f"job-{number}") for number in range(4)]
        polls = [asyncio.create_task(link.poll("n1", wait=5, most=1)) for _ in orders]
        await asyncio.sleep(0)
        callers = [asyncio.create_task(link.submit("n1", order)) for order in orders]

        taken = [batch[0] for batch in await asyncio.gather(*polls)]
        assert sorted(order.job_id for order in taken) == [order.job_id for order in orders]
        for caller in callers:
            caller.cancel()

    asyncio.run(story())


def test_the_queue_of_a_node_is_bounded(monkeypatch):
    async def story():
        monkeypatch.setattr(channel_module, "MAX_WAITING", 2)
        link = channel()
        link.touch("n1")
        waiting = [asyncio.create_task(link.submit("n1", command())) for _ in range(2)]
        await asyncio.sleep(0)
        error = await refused(link.submit("n1", command()))

        assert error.kind.name == "node-unreachable"
        for caller in waiting:
            caller.cancel()
        await asyncio.wait(waiting)
        assert await link.poll("n1", wait=0, most=10) == []

    asyncio.run(story())


def test_closing_ends_polls_and_waits_at_once():
    async def story():
        link = channel()
        link.touch("n2")
        poll = asyncio.create_task(link.poll("n1", wait=30, most=1))
        unseen = asyncio.create_task(link.submit("n2", command()))
        await asyncio.sleep(0)
        link.close()

        assert await poll == []
        assert (await refused(unseen)).kind.name == "node-unreachable"
        assert (await refused(link.submit("n2", command()))).kind.name == "node-unreachable"
        await link.idle(30)

    asyncio.run(story())
