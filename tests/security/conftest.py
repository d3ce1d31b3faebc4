"""The adapter as `tests/service` has it, with two tenants whose nodes, jobs and credentials are everybody's target."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from adapter.app import create_app
from adapter.settings import Settings
from tests.labs import acme, database, globex, lab, lab_paths  # noqa: F401 - found by name
from tests.security.canaries import seen, store  # noqa: F401 - found by name
from tests.security.hostile import allowed, hostile, others_are_served  # noqa: F401 - found by name
from tests.security.world import World
from tests.service.conftest import (  # noqa: F401 - pytest finds fixtures by their names here
    _settings,
    adapter,
    base_settings,
    command,
    convex,
    convex_session,
    document,
    http,
    keys,
    node,
    node_session,
    own_adapter,
)


@pytest.fixture
def world(http, convex, keys) -> World:  # noqa: F811
    """Both tenants and their nodes."""
    return World(http, convex, keys)


@pytest.fixture
def same() -> Callable[[httpx.Response], bytes]:
    """All that an answer tells: status, headers and body; only its name and its time are its own."""

    def told(response: httpx.Response) -> bytes:
        of_its_own = {"x-request-id", "date"}
        headers = sorted((k, v) for k, v in response.headers.items() if k not in of_its_own)
        return json.dumps([response.status_code, headers]).encode() + response.content

    return told


@pytest.fixture
def problem() -> Callable[[httpx.Response], tuple[int, Any]]:
    """Status and short name of the problem that an answer is."""

    def named(response: httpx.Response) -> tuple[int, Any]:
        assert response.headers["content-type"] == "application/problem+json", response.text
        return response.status_code, response.json()["type"].rpartition("/")[2]

    return named


@pytest.fixture
def application(tmp_path, keys, convex) -> FastAPI:  # noqa: F811
    """The application as it is served, before anybody serves it."""
    return create_app(Settings(**_settings(tmp_path, keys, convex)))


@pytest.fixture
def refused_alike(problem, same) -> Callable[[list[httpx.Response], int, str], None]:
    """Fail unless all answers are this problem, in the same bytes: none tells more than another."""

    def check(answers: list[httpx.Response], status: int, name: str) -> None:
        assert {problem(answer) for answer in answers} == {(status, name)}
        assert len({same(answer) for answer in answers}) == 1

    return check
