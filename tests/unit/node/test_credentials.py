"""Credentials for registries: the file that other tools write, read by their rules."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.registry.credentials import AuthFileError, Login, auth_file, login
from aiida_byoc.runtimes.reference import Reference


def pair(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def written(place: Path, auths: Any, mode: int = 0o600) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(auths if isinstance(auths, str) else json.dumps({"auths": auths}))
    place.chmod(mode)
    return place


def found(tmp_path: Path, auths: Any, reference: str) -> Login | None:
    return login(written(tmp_path / "auth.json", auths), Reference.parse(reference))


def test_the_most_specific_entry_counts(tmp_path: Path) -> None:
    auths = {
        "registry.example": pair("all", "1"),
        "registry.example/lab": pair("lab", "2"),
        "registry.example/lab/tool": pair("tool", "3"),
        "registry.example:5000": pair("port", "4"),
    }

    def user(reference: str) -> str | None:
        entry = found(tmp_path, auths, reference)
        return entry and entry.user

    assert user("registry.example/lab/tool:1") == "tool"
    assert user("registry.example/lab/other") == "lab"
    assert user("registry.example/laboratory/tool") == "all"
    assert user("registry.example:5000/lab/tool") == "port"
    assert user("other.example/lab/tool") is None


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("https://registry.example/v1/", "registry.example/a"),
        ("https://registry.example", "registry.example/a"),
        ("https://index.docker.io/v1/", "docker.io/acme/a"),
        ("docker.io", "docker.io/python"),
    ],
)
def test_docker_writes_hosts_in_several_ways(tmp_path: Path, key: str, reference: str) -> None:
    assert found(tmp_path, {key: pair("me", "a:b")}, reference) == Login(user="me", password="a:b")


def test_a_token_and_plain_words_are_understood(tmp_path: Path) -> None:
    auths = {
        "a.example": {**pair("<token>", ""), "identitytoken": "secret"},
        "b.example": {"username": "me", "password": "secret"},
        "c.example": {},
    }

    token, words = (found(tmp_path, auths, f"{host}.example/x") for host in "ab")

    assert token is not None
    assert token.token == "secret"
    assert words == Login(user="me", password="secret")
    assert found(tmp_path, auths, "c.example/x") is None
    assert login(None, Reference.parse("a.example/x")) is None


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("{", 0o600, "is not JSON"),
        ("[]", 0o600, "is not JSON"),
        ('{"auths": [1]}', 0o600, "an entry .* has no sense|is not JSON"),
        ('{"auths": {"a.example": {"auth": "?"}}}', 0o600, "an entry .* has no sense"),
        ('{"auths": {"a.example": 1}}', 0o600, "an entry .* has no sense"),
        ('{"auths": {}}', 0o640, r"is open to others; chmod 600 .*auth\.json"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: str, mode: int, words: str
) -> None:
    file = written(tmp_path / "auth.json", content, mode)

    with pytest.raises(AuthFileError, match=words):
        login(file, Reference.parse("a.example/x"))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AuthFileError, match="cannot be read: No such file"):
        login(tmp_path / "auth.json", Reference.parse("a.example/x"))


def test_the_file_of_other_tools_is_found(tmp_path: Path) -> None:
    """In the order of containers-auth.json(5)."""
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    places = [
        tmp_path / ".docker" / "config.json",
        tmp_path / ".config" / "containers" / "auth.json",
        tmp_path / "run" / "containers" / "auth.json",
    ]

    assert auth_file(environment) is None
    for place in places:
        written(place, {})
        assert auth_file(environment) == place
    assert auth_file({**environment, "REGISTRY_AUTH_FILE": "/named"}) == Path("/named")
    assert auth_file({"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "none")}) == places[1]
