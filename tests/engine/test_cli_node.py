"""`verdi data byoc node enroll|rotate-key|drain|resume|show`, against an adapter that keeps to the contract."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.manage import get_config
from click.testing import CliRunner, Result

from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.agent.keys import made_key, private_key, public_key
from aiida_byoc.cli import byoc
from aiida_byoc.cli.common import settings_path
from aiida_byoc.commands.draining import set_draining
from aiida_byoc.commands.signatures import load_product_keys
from aiida_byoc.node import NodeSettings
from tests.builders import POLICY
from tests.engine.conftest import NODE_ID
from tests.node_registry import Registry, node_registry

Enroll = Callable[..., Result]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with node_registry() as registry:
        assert registry.node_id == NODE_ID
        yield registry


@pytest.fixture
def place(node: Any, profile: Any) -> Iterator[Path]:
    """Where the settings go; afterwards profile and directory are as they were."""
    before = copy.deepcopy(profile.dictionary)
    path: Path = settings_path(profile.name)
    yield path
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink()
    set_draining(node.connection, False)
    profile.dictionary.clear()
    profile.dictionary.update(before)
    get_config().update_profile(profile).store()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def enroll(registry: Registry, place: Path, policy: Path, tmp_path: Path) -> Enroll:
    """Run the command with a token on standard input; keywords are options."""

    def run(token: Any, **changes: str | None) -> Result:
        options = {
            "url": registry.url,
            "policy": str(policy),
            "image-store": str(tmp_path / "store"),
            "computer": "cluster",
            **changes,
        }
        words = [
            word
            for name, value in options.items()
            if value is not None
            for word in (f"--{name}", value)
        ]
        return CliRunner().invoke(
            byoc, ["node", "enroll", *words], input=f"{token}\n", catch_exceptions=False
        )

    return run


def written(place: Path) -> set[str]:
    return {file.name for file in place.parent.glob(f"{place.stem}.*")}


def test_a_token_makes_a_node(enroll: Enroll, registry: Registry, place: Path) -> None:
    """Key, product keys and settings are there, private; the agent is admitted; the doctor has the last word."""
    token = registry.token()

    result = enroll(token)

    assert result.exit_code == 0, result.output
    settings = NodeSettings.load(place)
    assert (settings.node_id, settings.enrolled) == (NODE_ID, True)
    assert list(registry.keys) == [public_key(private_key(settings.key_file)).key_id]
    assert settings.product_keys_file is not None
    assert set(load_product_keys(settings.product_keys_file)) == {token.product_key_id}
    assert written(place) == {
        f"{place.stem}{ending}" for ending in (".toml", ".pem", ".product-keys.json")
    }
    for file in place.parent.glob(f"{place.stem}.*"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert AdapterClient(settings).poll(wait_seconds=0, max_commands=1) == []
    assert token.secret not in result.output
    # The doctor's word on the node; jobs of other tests may need attention.
    assert re.search(r"^identity +ok$", result.output, re.MULTILINE)
    assert "globex" in result.output  # the policy names it, the product does not


def test_a_lost_answer_is_mended_by_doing_it_again(
    enroll: Enroll, registry: Registry, place: Path
) -> None:
    """Nothing is written before the answer; the second try brings the same key; afterwards the token is used up."""
    token = registry.token()
    registry.lose = ["enroll$"]

    lost = enroll(token)
    before = written(place)
    mended = enroll(token)
    key_id = next(iter(registry.keys))
    used = enroll(token)

    assert (lost.exit_code, mended.exit_code, used.exit_code) == (1, 0, 1)
    assert not place.exists() or f"{place.stem}.toml" not in before
    assert "ask it for a new one" in used.output
    settings = NodeSettings.load(place)
    assert public_key(private_key(settings.key_file)).key_id == key_id


def test_what_fails_after_the_answer_is_mended_by_doing_it_again(
    enroll: Enroll, registry: Registry, place: Path
) -> None:
    token = registry.token()

    failed = enroll(token, computer="nowhere")
    mended = enroll(token)

    assert (failed.exit_code, mended.exit_code) == (1, 0), mended.output
    assert "there is no AiiDA computer nowhere" in failed.output
    assert NodeSettings.load(place).enrolled


def test_an_adapter_with_other_product_keys_changes_nothing(
    enroll: Enroll, registry: Registry, place: Path
) -> None:
    result = enroll(registry.token("A" * 43))

    assert result.exit_code == 1
    assert "nothing was written" in result.output
    assert result.output.count("\n") == 1
    assert not {name for name in written(place) if name.endswith((".toml", ".pem", ".json"))}


@pytest.mark.parametrize(
    ("token", "changes", "sentence"),
    [
        ("", {}, "is not an enrolment token"),
        ("byoc1.a.b.c", {}, "is not an enrolment token"),
        (None, {"url": "http://adapter.example"}, "use https://"),
        (None, {"url": "nowhere"}, "--url: "),
        (None, {"policy": None}, "--policy is missing"),
        (None, {"ca-file": "/nonexistent.pem"}, "ca_file /nonexistent.pem cannot be used"),
        (None, {"proxy": "nonsense"}, "--proxy: "),
        (None, {"url": "http://127.0.0.1:1"}, "ConnectError"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_the_token_stays_good(
    enroll: Enroll,
    registry: Registry,
    token: str | None,
    changes: dict[str, str | None],
    sentence: str,
) -> None:
    result = enroll(registry.token() if token is None else token, **changes)

    assert result.exit_code == 1
    assert sentence in result.output
    assert result.output.count("\n") == 1
    assert registry.asked("enroll$") == []


def test_a_token_of_another_node_is_not_spent_on_this_ledger(
    enroll: Enroll, registry: Registry
) -> None:
    registry.node_id = "another"

    result = enroll(registry.token())

    assert f"belongs to the node {NODE_ID}" in result.output
    assert registry.asked("enroll$") == []


def test_a_node_that_is_enrolled_again_stays_as_it_was_set_up(
    enroll: Enroll, registry: Registry, place: Path
) -> None:
    """As after a revocation: another key, the same policy, images and computer."""
    enroll(registry.token())
    before, key_id = NodeSettings.load(place), next(iter(registry.keys))
    before = before.model_copy(update={"poll_seconds": 7})
    before.save(place)
    registry.keys.clear()
    made_key(before.key_file.with_name(f"{before.key_file.name}.next"))
    registry.lose = ["enroll$"]
    enroll(registry.token())

    again = enroll(registry.token(), policy=None, computer=None, **{"image-store": None})

    assert again.exit_code == 0, again.output
    assert NodeSettings.load(place) == before
    assert list(registry.keys) != [key_id]
    assert {name for name in written(place) if ".pem" in name} == {f"{place.stem}.pem"}
    assert AdapterClient(before).poll(wait_seconds=0, max_commands=1) == []


def test_a_key_is_changed(enroll: Enroll, registry: Registry, place: Path) -> None:
    enroll(registry.token())
    before = next(iter(registry.keys))

    result = CliRunner().invoke(byoc, ["node", "rotate-key"], catch_exceptions=False)

    (after,) = registry.keys
    assert (result.exit_code, after != before) == (0, True), result.output
    assert f"is now {after}" in result.output


def test_a_key_that_the_adapters_operator_keeps_is_not_changed_here(node: Any, place: Path) -> None:
    node.settings.save(place)

    result = CliRunner().invoke(byoc, ["node", "rotate-key"], catch_exceptions=False)

    assert result.exit_code == 1
    assert "its operator changes it" in result.output


def test_a_node_is_drained_and_resumed(enroll: Enroll, registry: Registry) -> None:
    enroll(registry.token())

    def said(*words: str) -> str:
        result = CliRunner().invoke(byoc, ["node", *words], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    assert "takes no new jobs; " in said("drain")
    assert "as before" in said("drain")
    shown = json.loads(said("show", "--json"))
    assert shown["draining_since"] is not None
    assert (shown["node_id"], shown["enrolled"]) == (NODE_ID, True)
    assert shown["key_id"] == next(iter(registry.keys))
    assert shown["product_keys"] == [registry.product_keys[0]["kid"]]
    assert "takes new jobs; " in said("resume")
    assert json.loads(said("show", "--json"))["draining_since"] is None
    assert "draining_since  -" in said("show")


def test_init_leaves_an_enrolled_node_enrolled(
    enroll: Enroll, registry: Registry, place: Path, policy: Path, tmp_path: Path
) -> None:
    enroll(registry.token())
    before = NodeSettings.load(place)

    result = CliRunner().invoke(
        byoc,
        [
            *("init", "--node-id", NODE_ID, "--adapter-url", registry.url),
            *("--key-file", str(before.key_file), "--policy", str(policy)),
            *("--image-store", str(tmp_path / "store"), "--computer", "cluster"),
        ],
        catch_exceptions=False,
    )

    assert result.exit_code == 0, result.output
    assert NodeSettings.load(place) == before
