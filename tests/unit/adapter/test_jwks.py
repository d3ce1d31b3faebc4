"""Keys of an issuer are fetched when they are needed, rarely, bounded, from where they are and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from adapter.jwks import PublishedKeys
from aiida_byoc.contracts.problems import ProblemError
from tests.service.issuers import DISCOVERY, KEYS, IssuerServer, SigningKey


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    server = IssuerServer()
    yield server
    server.stop()


_OPENED: list[PublishedKeys] = []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def published(server: IssuerServer, clock: Clock, *, discovery: bool = False) -> PublishedKeys:
    url = None if discovery else server.url + KEYS
    _OPENED.append(PublishedKeys(server.url, url, refetch_seconds=30, clock=clock))
    return _OPENED[-1]


def run(story) -> None:
    async def whole() -> None:
        await story()
        while _OPENED:
            await _OPENED.pop().close()

    asyncio.run(whole())


async def kids(keys: PublishedKeys, kid: object = None) -> list[str]:
    return [key.key_id or "" for key in await keys.candidates(kid)]


async def unavailable(keys: PublishedKeys) -> None:
    with pytest.raises(ProblemError) as caught:
        await keys.candidates("one")
    assert caught.value.kind.name == "product-unavailable"


@pytest.mark.parametrize("discovery", [False, True])
def test_keys_are_fetched_once_for_many_tokens(server, discovery):
    async def story():
        server.keys = [SigningKey("one").jwk]
        keys = published(server, Clock(), discovery=discovery)
        answers = await asyncio.gather(*(kids(keys, "one") for _ in range(20)))
        assert answers == [["one"]] * 20
        assert server.asked == {KEYS: 1} | ({DISCOVERY: 1} if discovery else {})

    run(story)


def test_an_unknown_kid_makes_us_look_again_but_not_more_than_every_thirty_seconds():
    server, clock = IssuerServer(), Clock()

    async def story():
        server.keys = [SigningKey("one").jwk]
        keys = published(server, clock)
        assert await kids(keys, "one") == ["one"]
        server.keys = [SigningKey("two").jwk]
        for clock.now in (1, 10, 29):
            assert await kids(keys, "two") == []
        assert server.asked[KEYS] == 1
        clock.now = 30
        assert await kids(keys, "two") == ["two"]
        assert await kids(keys, "one") == []
        for clock.now in range(31, 60):
            await kids(keys, f"junk-{clock.now}")
        assert server.asked[KEYS] == 2

    run(story)
    server.stop()


def test_a_key_that_the_issuer_took_back_is_good_for_five_minutes_at_most(server):
    async def story():
        clock = Clock()
        server.keys = [SigningKey("one").jwk, SigningKey("two").jwk]
        keys = published(server, clock)
        await kids(keys)
        server.keys = server.keys[1:]
        clock.now = 299
        assert await kids(keys, "one") == ["one"]
        clock.now = 300
        assert await kids(keys, "one") == []

    run(story)


BAD_DAYS = ["huge", "redirect", "500", "junk", "no keys", "reset"]


@pytest.mark.parametrize("fault", BAD_DAYS)
def test_on_a_bad_day_nobody_gets_in_and_it_passes(fault, server):
    """The redirect leads to a server with perfectly good keys: it is not followed."""
    other = IssuerServer()

    async def story():
        clock = Clock()
        key = SigningKey("one").jwk
        server.keys, other.keys = [key], [key]
        server.fault, server.elsewhere = fault, other.url + KEYS
        keys = published(server, clock)
        await unavailable(keys)
        clock.now = 4
        await unavailable(keys)
        assert server.asked[KEYS] == 1
        assert not other.asked
        server.fault, clock.now = "", 5
        assert await kids(keys, "one") == ["one"]

    run(story)
    other.stop()


def test_a_server_that_drips_is_left_after_five_seconds(server, monkeypatch):
    monkeypatch.setattr("adapter.jwks._FETCH_SECONDS", 0.5)

    async def story():
        server.fault = "slow"
        keys = published(server, Clock())
        async with asyncio.timeout(5):
            await unavailable(keys)

    run(story)


def test_what_is_known_outlives_a_bad_hour_and_no_more(server):
    async def story():
        clock = Clock()
        server.keys = [SigningKey("one").jwk]
        keys = published(server, clock)
        await kids(keys)
        server.fault = "500"
        for clock.now in (300, 1000, 3599):
            assert await kids(keys, "one") == ["one"]
        clock.now = 3630
        await unavailable(keys)

    run(story)


DOCUMENTS = {
    "another issuer": {"issuer": "https://elsewhere.example"},
    "no keys": {"jwks_uri": None},
    "keys without TLS": {"jwks_uri": "http://keys.example/jwks.json"},
    "keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "keys with a password": {"jwks_uri": "https://user:word@keys.example/jwks.json"},
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_discovery_document_that_cannot_be_believed_gives_no_keys(case, server):
    async def story():
        server.keys = [SigningKey("one").jwk]
        server.document = DOCUMENTS[case]
        await unavailable(published(server, Clock(), discovery=True))
        assert server.asked == {DISCOVERY: 1}

    run(story)


def test_what_we_do_not_understand_in_a_set_is_left_out(server):
    async def story():
        good = SigningKey("one")
        server.keys = [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
            {"kty": "EC", "crv": "P-256", "kid": "broken"},
            {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "curve"},
            {"kty": "AKP", "kid": "of the future"},
            {**SigningKey("private").jwk, "d": "AA"},
            {**SigningKey("encryption").jwk, "use": "enc"},
            "none",
            good.jwk,
        ]
        assert await kids(published(server, Clock())) == ["one"]

    run(story)
