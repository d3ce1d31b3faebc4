"""An answer is believed for its time and no longer; many who ask at once ask once; strangers fill no memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from adapter.caching import Allowance, Cached
from aiida_byoc.contracts.problems import ProblemError


class Source:
    """Answers from a table; says how often it was asked. Its clock stands still unless it is told."""

    def __init__(self, **values: str) -> None:
        self.values: dict[str, str | None] = dict(values)
        self.asked: list[str] = []
        self.now = 0.0
        self.is_down = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def load(self, key: str) -> str | None:
        self.asked.append(key)
        value = self.values.get(key)
        await self.go_on.wait()
        if self.is_down:
            raise ProblemError("product-unavailable")
        return value

    async def until_asked(self) -> None:
        """Let everybody come as far as they can."""
        while not self.asked:
            await asyncio.sleep(0)

    def cached(self, *, most: int = 100, rate: float = 1, burst: int = 1000) -> Cached[str, str]:
        clock = lambda: self.now  # noqa: E731
        return Cached(
            self.load,
            seconds=60,
            unknown_seconds=10,
            most=most,
            strangers=Allowance(rate=rate, burst=burst, clock=clock),
            clock=clock,
        )


def story(told: Callable[[Source], object]) -> None:
    async def run() -> None:
        await told(Source(n1="one", n2="two"))  # type: ignore[misc]

    asyncio.run(run())


async def fails(cached: Cached[str, str], key: str) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await cached.get(key)
    return caught.value


def test_an_answer_is_given_again_until_half_of_its_time_is_over():
    async def told(source):
        cached = source.cached()
        for source.now in (0, 29):
            assert await cached.get("n1") == "one"
        assert source.asked == ["n1"]
        source.now, source.values["n1"] = 30, "other"
        assert await cached.get("n1") == "other"

    story(told)


def test_that_there_is_no_such_thing_is_an_answer_too_for_less_long():
    async def told(source):
        cached = source.cached()
        for source.now in (0, 9):
            assert await cached.get("x") is None
        assert source.asked == ["x"]
        source.now, source.values["x"] = 10, "new"
        assert await cached.get("x") == "new"

    story(told)


def test_while_asking_fails_an_answer_counts_to_the_end_of_its_time_and_not_a_second_longer():
    async def told(source):
        cached = source.cached()
        await cached.get("n1")
        source.is_down = True
        for source.now in (30, 45, 59.9):
            assert await cached.get("n1") == "one"
        source.now = 60
        assert (await fails(cached, "n1")).kind.name == "product-unavailable"

    story(told)


def test_after_a_failure_nobody_asks_for_a_while():
    async def told(source):
        cached = source.cached()
        await cached.get("n1")
        source.is_down = True
        for source.now in (30, 31, 34):
            await cached.get("n1")
        assert len(source.asked) == 2
        source.now, source.is_down = 36, False
        await cached.get("n1")
        assert len(source.asked) == 3

    story(told)


def test_an_answer_counts_from_when_it_was_asked_for():
    """However long the product took: what it said may be as old as the question."""

    async def told(source):
        cached = source.cached()
        source.go_on.clear()
        asking = asyncio.create_task(cached.get("n1"))
        await source.until_asked()
        source.now = 40
        source.go_on.set()
        assert await asking == "one"
        source.is_down, source.now = True, 60
        await fails(cached, "n1")

    story(told)


def test_many_who_ask_at_once_ask_once():
    async def told(source):
        cached = source.cached()
        source.go_on.clear()
        asking = [asyncio.create_task(cached.get("n1")) for _ in range(50)]
        await source.until_asked()
        asking[0].cancel()  # who goes away takes nobody along
        source.go_on.set()
        assert await asyncio.gather(*asking[1:]) == ["one"] * 49
        assert source.asked == ["n1"]

    story(told)


def test_many_who_ask_at_once_fail_together():
    async def told(source):
        cached = source.cached()
        source.is_down = True
        answers = await asyncio.gather(
            *(cached.get("n1") for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(answer, ProblemError) for answer in answers)
        assert source.asked == ["n1"]

    story(told)


def test_what_was_forgotten_meanwhile_is_not_kept():
    """Whoever changed something must not get the answer of before the change."""

    async def told(source):
        cached = source.cached()
        source.go_on.clear()
        asking = asyncio.create_task(cached.get("n1"))
        await source.until_asked()
        cached.forget("n1")
        source.values["n1"] = "changed"
        source.go_on.set()
        assert await asking == "one"
        assert await cached.get("n1") == "changed"

    story(told)


def test_who_wants_it_newer_asks_but_not_right_after_another():
    async def told(source):
        cached = source.cached()
        await cached.get("n1")
        source.now = 4
        await cached.get("n1", at_most=5)
        assert len(source.asked) == 1
        source.now = 5
        await cached.get("n1", at_most=5)
        assert len(source.asked) == 2

    story(told)


def test_who_waits_for_the_end_of_an_answer_wakes_when_it_is_forgotten():
    async def told(source):
        cached = source.cached()
        await cached.get("n1")
        waiting = asyncio.create_task(cached.until_due("n1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        cached.forget("n1")
        async with asyncio.timeout(5):
            await waiting

    story(told)


def test_strangers_fill_no_memory_and_push_out_nobody_who_is_known():
    async def told(source):
        cached = source.cached(most=10)
        await cached.get("n1")
        for number in range(500):
            await cached.get(f"x{number}")
        assert len(cached) <= 11
        source.asked.clear()
        assert await cached.get("n1") == "one"
        assert source.asked == []

    story(told)


def test_strangers_are_asked_about_only_so_often_and_who_is_known_does_not_feel_it():
    async def told(source):
        cached = source.cached(rate=1, burst=3)
        await cached.get("n1")
        for number in range(3):
            await cached.get(f"x{number}")
        assert (await fails(cached, "x9")).kind.name == "product-unavailable"
        source.now = 30
        source.asked.clear()
        for _ in range(7):
            await cached.get("n1")
        assert source.asked == ["n1"]
        assert await cached.get("x9") is None  # a second later, one more

    story(told)


def test_who_turns_out_to_be_somebody_counts_as_no_stranger():
    async def told(source):
        source.values.update({f"y{number}": "somebody" for number in range(10)})
        cached = source.cached(burst=1, rate=0.0001)
        for number in range(10):
            assert await cached.get(f"y{number}") == "somebody"

    story(told)
