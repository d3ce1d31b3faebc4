"""The adapter between a scripted node and a product that fails on demand.

Node and product speak the wire, nothing else: what passes here passes for anybody who follows the contracts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.service.adapter_process import ROOT, Adapter
from tests.service.conformance import conforms
from tests.service.enrolled import NodeKey
from tests.service.events import BATCH
from tests.service.fake_convex import FakeConvex
from tests.service.keys import CLIENT_ISSUER, Keys
from tests.service.node import ScriptedNode


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="session")
def convex_session(keys: Keys) -> Iterator[FakeConvex]:
    convex = FakeConvex(keys)
    yield convex
    convex.stop()


@pytest.fixture
def convex(convex_session: FakeConvex) -> Iterator[FakeConvex]:
    """The product, well again after each test."""
    convex_session.entered = threading.Semaphore(0)
    convex_session.go_on.clear()
    yield convex_session
    convex_session.faults.clear()
    convex_session.poison.clear()
    convex_session.projections.rejected.clear()
    convex_session.projections.epochs.clear()
    convex_session.registry.reset()
    convex_session.down = False
    convex_session.go_on.set()


def _settings(directory: Path, keys: Keys, convex: FakeConvex) -> dict[str, Any]:
    key_file = directory / "service.pem"
    key_file.write_bytes(keys.pem("service"))
    return {
        "client_issuers": [{"issuer": CLIENT_ISSUER, "jwks": keys.jwks("product")}],
        "nodes": {
            "n1": {"jwks": keys.jwks("n1"), "tenants": ["acme", "globex"]},
            "n2": {"jwks": keys.jwks("n2"), "tenants": ["globex"]},
        },
        "convex": {
            "url": convex.url,
            "service_issuer": "https://adapter.example",
            "service_key_file": str(key_file),
            "key_id": "service-1",
        },
        "verdict_timeout_seconds": 15,
        "redelivery_seconds": 0.2,
    }


@pytest.fixture(scope="session")
def base_settings() -> Callable[..., dict[str, Any]]:
    """The settings of the adapter under test, for one that differs in a few."""
    return _settings


@pytest.fixture(scope="session")
def adapter(tmp_path_factory, keys: Keys, convex_session: FakeConvex) -> Iterator[Adapter]:
    directory = tmp_path_factory.mktemp("adapter")
    adapter = Adapter(directory, _settings(directory, keys, convex_session))
    yield adapter
    adapter.stop()


@pytest.fixture
def own_adapter(tmp_path: Path, keys: Keys, convex: FakeConvex) -> Iterator[Callable[..., Adapter]]:
    """Adapters of this test alone: to be killed, or set up otherwise."""
    started: list[Adapter] = []

    def start(**changes: Any) -> Adapter:
        directory = tmp_path / str(len(started))
        started.append(Adapter(directory, _settings(tmp_path, keys, convex) | changes))
        return started[-1]

    yield start
    for adapter in started:
        adapter.process.kill()
        adapter.process.wait()


@pytest.fixture
def command() -> dict[str, Any]:
    """A correct SubmitJobCommand of tenant acme for node n1, with a job_id of its own."""
    return {
        "schema_version": "1",
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": f"job-{uuid4()}",
        "management_node_id": "n1",
        "execution_profile": {"queue_name": "main"},
        "resource_shape": {"cpu": 1, "memory_mib": 256, "walltime_seconds": 60},
        "workload": {
            "kind": "container",
            "image": "localhost/byoc/demo:1",
            "argv": ["python3", "-c", "print(1)"],
        },
        "requested_by": {"user_id": "user-1"},
    }


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "openapi.json").read_text())


@pytest.fixture
def http(adapter: Adapter, document: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of the adapter that holds every answer against the published document."""
    hooks = {"response": [lambda response: conforms(response, document)]}
    with httpx.Client(base_url=adapter.url, event_hooks=hooks, timeout=30, trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def node_session(adapter: Adapter, keys: Keys) -> Iterator[ScriptedNode]:
    node = ScriptedNode(adapter.url, keys)
    yield node
    node.stop()


@pytest.fixture
def node(node_session: ScriptedNode) -> Iterator[ScriptedNode]:
    """Node n1, with nothing received yet."""
    # New lists: what an earlier test's command still leads to belongs into the old ones.
    node_session.received, node_session.problems = [], []
    yield node_session
    node_session.decide, node_session.along = node_session.accept, False
    node_session.wait_seconds = 1


@pytest.fixture
def submit(http: httpx.Client, keys: Keys) -> Callable[..., httpx.Response]:
    """Submit as a client would: a fresh key unless one is given."""

    def submit(
        command: dict[str, Any],
        *,
        tenant: str = "acme",
        key: str | None = None,
        node_id: str = "n1",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        sent = {
            "Authorization": f"Bearer {keys.client(tenant)}",
            "Idempotency-Key": f'"{key or uuid4()}"',
            **(headers or {}),
        }
        return http.post(f"/v1/nodes/{node_id}/jobs", json=command, headers=sent)

    return submit


@pytest.fixture
def deliver(http: httpx.Client, keys: Keys) -> Callable[..., httpx.Response]:
    """Deliver events, or raw bytes, as node n1 does."""

    def deliver(events: Any, content_type: str = BATCH, **headers: str) -> httpx.Response:
        content = json.dumps(events) if isinstance(events, list | dict | str) else events
        sent = {
            "Authorization": f"Bearer {keys.node('n1')}",
            "Content-Type": content_type,
            **headers,
        }
        return http.post("/v1/nodes/n1/events", content=content, headers=sent)

    return deliver


@pytest.fixture
def job() -> str:
    """The submission_id of a job that nobody told of yet."""
    return str(uuid4())


@pytest.fixture
def key() -> NodeKey:
    return NodeKey()


@pytest.fixture
def node_id(convex, key) -> str:
    """An enrolled node of tenant acme."""
    name = f"node-{uuid4()}"
    convex.registry.enrol(name, key.key_id, key.jwk, "acme")
    return name
