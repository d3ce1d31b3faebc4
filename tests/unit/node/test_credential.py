"""How an enrolled node is known: one access token for all loops, renewed in time, and another when it is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent import credential as module
from aiida_byoc.agent import link as link_module
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.credential import credential
from aiida_byoc.agent.keys import made_key, public_key
from aiida_byoc.node import NodeSettings, SettingsError
from tests.node_registry import Registry


class Clock:
    """Monotonic time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def poll(client: AdapterClient) -> list[Any]:
    return client.poll(wait_seconds=0, max_commands=1)


def test_all_loops_share_one_token_until_half_of_its_life(
    enrolled: NodeSettings, registry: Registry, clock: Clock
) -> None:
    shared = credential(enrolled)
    clients = [AdapterClient(enrolled, shared) for _ in range(2)]
    for passed in (0, 299, 2):
        clock.now += passed
        for client in clients:
            poll(client)

    bearers = [headers["Authorization"] for _, headers, _ in registry.asked("poll$")]

    assert len(registry.asked("token$")) == 2
    assert bearers[:4] == [bearers[0]] * 4
    assert bearers[4] == bearers[5] != bearers[0]


def test_a_token_that_is_refused_is_fetched_anew_once(
    enrolled: NodeSettings, registry: Registry
) -> None:
    client = AdapterClient(enrolled)
    poll(client)
    registry.tokens.clear()

    assert poll(client) == []

    assert len(registry.asked("token$")) == 2
    registry.handle = lambda path, headers, body: (  # type: ignore[method-assign]
        Registry.handle(registry, path, headers, body) if "token" in path else (401, {})
    )
    with pytest.raises(AdapterUnavailable, match="401"):
        poll(client)
    assert len(registry.asked("token$")) == 3
    assert len(registry.asked("poll$")) == 3 + 2


def test_i28_a_revoked_node_says_so_and_asks_ever_more_seldom(
    enrolled: NodeSettings,
    registry: Registry,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = AdapterClient(enrolled)
    poll(client)
    registry.keys.clear()

    with pytest.raises(AdapterUnavailable, match="was revoked") as caught:
        poll(client)
    for _ in range(5):
        with pytest.raises(AdapterUnavailable, match="node enroll") as again:
            poll(client)

    assert caught.value.status == again.value.status == 401
    assert again.value.retry_after is not None
    assert len(registry.asked("token$")) == 2
    (record,) = [record for record in caplog.records if "event=node_refused" in record.message]
    assert record.levelno == logging.ERROR
    assert "jobs go on" in record.message


def test_a_node_that_was_enrolled_again_is_admitted_without_a_restart(
    enrolled: NodeSettings, registry: Registry, clock: Clock
) -> None:
    client = AdapterClient(enrolled)
    registry.keys.clear()
    with pytest.raises(AdapterUnavailable):
        poll(client)
    enrolled.key_file.unlink()
    public = public_key(made_key(enrolled.key_file))
    registry.keys[public.key_id] = public.model_dump()
    clock.now += 120

    assert poll(client) == []


def test_an_adapter_that_is_away_costs_no_token_that_is_still_good(
    enrolled: NodeSettings, registry: Registry, clock: Clock
) -> None:
    client = AdapterClient(enrolled)
    poll(client)
    registry.lose += ["token$"]
    clock.now += 301

    assert poll(client) == []
    assert poll(client) == []

    assert len(registry.asked("token$")) == 2
    registry.lose += ["token$"]
    clock.now += 300
    with pytest.raises(AdapterUnavailable):
        poll(client)


def test_a_clock_that_is_off_is_named_as_the_cause(
    enrolled: NodeSettings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = link_module.datetime

    class Ahead(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(real.now(tz).timestamp() + 3600, tz)

    monkeypatch.setattr(link_module, "datetime", Ahead)
    registry.keys.clear()

    with pytest.raises(AdapterUnavailable, match=r"clock is \+360\d s off"):
        poll(AdapterClient(enrolled))


def test_a_key_that_others_could_read_is_not_used(
    enrolled: NodeSettings, registry: Registry
) -> None:
    client = AdapterClient(enrolled)
    enrolled.key_file.chmod(0o640)

    with pytest.raises(SettingsError, match=r"mode 0640\); run `chmod 600 ") as caught:
        poll(client)

    assert "rotate-key" in str(caught.value)
    assert registry.requests == []


def test_a_node_declared_by_hand_takes_a_changed_key_at_once(
    enrolled: NodeSettings, registry: Registry
) -> None:
    settings = enrolled.model_copy(update={"enrolled": False})
    client = AdapterClient(settings)
    seen = []

    def handle(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        seen.append(headers["Authorization"])
        return (401, {}) if len(seen) == 1 else (200, {"commands": []})

    registry.handle = handle  # type: ignore[method-assign]
    with pytest.raises(AdapterUnavailable):
        poll(client)  # the same key would be refused again
    assert len(seen) == 1
    poll(client)
    seen.clear()
    settings.key_file.unlink()
    assert isinstance(made_key(settings.key_file), Ed25519PrivateKey)

    assert poll(client) == []

    assert len(seen) == 2
    assert seen[0] != seen[1]
