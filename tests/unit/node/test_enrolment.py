"""Enrolment and rotation on the node's side: nothing is believed, and killed anywhere it can be repeated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.agent.credential import credential
from aiida_byoc.agent.enrolment import EnrolmentRefused, check_url, enrol, vouched_keys
from aiida_byoc.agent.keys import made_key, private_key, public_key
from aiida_byoc.agent.link import AdapterUnavailable, link
from aiida_byoc.agent.rotation import rotate
from aiida_byoc.node import NodeSettings, SettingsError
from tests.node_registry import Registry, product_key, public_members


def name_of(path: Path) -> str:
    return public_key(private_key(path)).key_id


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    enrolled: NodeSettings, registry: Registry, tmp_path: Path
) -> None:
    token, key = registry.token(), made_key(tmp_path / "new.pem")
    registry.lose = ["enroll$"]
    with link(enrolled) as http:
        with pytest.raises(AdapterUnavailable):
            enrol(http, token, key)

        enrolment = enrol(http, token, made_key(tmp_path / "new.pem"))

        other = made_key(tmp_path / "other.pem")
        with pytest.raises(EnrolmentRefused, match="ask it for a new one"):
            enrol(http, token, other)
    assert enrolment.key_id == public_key(key).key_id == next(iter(registry.keys))
    assert enrolment.tenants == ["acme"]


def test_only_the_key_that_the_token_names_is_believed(
    enrolled: NodeSettings, registry: Registry, tmp_path: Path
) -> None:
    """An adapter that somebody took over presents keys of its own, beside the product's or instead."""
    theirs, own = registry.product_keys[0], public_members(product_key())
    token = registry.token()
    with link(enrolled) as http:
        registry.product_keys = [own, {**theirs, "kid": "another-name"}]
        both = enrol(http, token, made_key(tmp_path / "new.pem"))
        registry.product_keys = [{**own, "kid": theirs["kid"]}]
        forged = enrol(http, token, made_key(tmp_path / "new.pem"))

    assert vouched_keys(both, token) == {"keys": [theirs]}
    with pytest.raises(EnrolmentRefused, match="nothing was written"):
        vouched_keys(forged, token)


def test_an_answer_for_another_key_is_refused(
    enrolled: NodeSettings, registry: Registry, tmp_path: Path
) -> None:
    honest = registry.handle

    def handle(path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        status, answer = honest(path, headers, body)
        return status, {**answer, "key_id": "A" * 43}

    registry.handle = handle  # type: ignore[method-assign]
    with link(enrolled) as http, pytest.raises(EnrolmentRefused, match="another node or key"):
        enrol(http, registry.token(), made_key(tmp_path / "new.pem"))


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://adapter.example", True),
        ("http://127.0.0.1:1", True),
        ("http://localhost", True),
        ("http://[::1]:80", True),
        ("http://adapter.example", False),
        ("http://127.0.0.1.example", False),
    ],
)
def test_a_secret_travels_only_by_https(enrolled: NodeSettings, url: str, fits: bool) -> None:
    settings = NodeSettings.model_validate({**enrolled.model_dump(), "adapter_url": url})

    if fits:
        check_url(settings)
    else:
        with pytest.raises(SettingsError, match="use https://"):
            check_url(settings)


def test_a_key_is_changed_under_a_running_agent(enrolled: NodeSettings, registry: Registry) -> None:
    client = AdapterClient(enrolled, credential(enrolled))
    client.poll(wait_seconds=0, max_commands=1)
    before = name_of(enrolled.key_file)

    with link(enrolled) as http:
        after = rotate(http, enrolled)

    assert list(registry.keys) == [after] == [name_of(enrolled.key_file)]
    assert after != before
    assert client.poll(wait_seconds=0, max_commands=1) == []
    assert registry.tokens[registry.asked("poll$")[-1][1]["Authorization"][7:]] == after
    assert [path.name for path in enrolled.key_file.parent.glob("node.pem*")] == ["node.pem"]
    assert enrolled.key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lost", ["token$", "keys$", "retire$"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_rotation_whose_answers_are_lost_can_be_repeated(
    enrolled: NodeSettings, registry: Registry, lost: str, times: int
) -> None:
    """At any moment the key in the file is one that the adapter takes."""
    before = name_of(enrolled.key_file)
    registry.lose = [lost] * times
    with link(enrolled) as http:
        for _ in range(times):
            with pytest.raises(AdapterUnavailable):
                rotate(http, enrolled)
            assert name_of(enrolled.key_file) in registry.keys

        after = rotate(http, enrolled)

    assert list(registry.keys) == [after] == [name_of(enrolled.key_file)]
    assert after != before


@pytest.mark.parametrize("state", ["made", "added", "linked", "switched", "retired"])
def test_a_rotation_that_was_killed_goes_on(
    enrolled: NodeSettings, registry: Registry, state: str
) -> None:
    """Each state of the files and of the registry that a kill can leave behind."""
    current = enrolled.key_file
    following, former = (current.with_name(f"node.pem.{end}") for end in ("next", "old"))
    before, new = name_of(current), public_key(made_key(following))
    if state != "made":
        registry.keys[new.key_id] = new.model_dump()
    if state in {"linked", "switched", "retired"}:
        os.link(current, former)
    if state in {"switched", "retired"}:
        following.replace(current)
    if state == "retired":
        del registry.keys[before]

    with link(enrolled) as http:
        after = rotate(http, enrolled)

    assert after == new.key_id == name_of(current)
    assert list(registry.keys) == [after]
    assert not following.exists()
    assert not former.exists()


def test_a_new_key_counts_once_the_adapter_has_heard_of_it(
    enrolled: NodeSettings, registry: Registry
) -> None:
    """It may believe what it knew of the node for a while; the old key stays until the new one works."""
    honest, refusals = registry.handle, []

    def handle(path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        if path.endswith("/token") and len(registry.keys) == 2 and len(refusals) < 2:
            refusals.append(name_of(enrolled.key_file))
            return 401, {}
        return honest(path, headers, body)

    registry.handle = handle  # type: ignore[method-assign]
    before = name_of(enrolled.key_file)
    with link(enrolled) as http:
        after = rotate(http, enrolled)

    assert refusals == [before, before]
    assert list(registry.keys) == [after]


def test_no_secret_stands_in_a_request_but_where_it_belongs(
    enrolled: NodeSettings, registry: Registry, tmp_path: Path
) -> None:
    token = registry.token()
    with link(enrolled) as http:
        enrol(http, token, made_key(tmp_path / "new.pem"))

    ((path, headers, body),) = registry.asked("enroll$")

    assert token.secret not in path + json.dumps(headers)
    assert json.loads(body)["secret"] == token.secret
    assert "d" not in json.loads(body)["public_key"]
    assert token.secret not in repr(token)
