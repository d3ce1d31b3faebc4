"""The adapter may die at any instant: what the node accepted is found again by its key."""

from __future__ import annotations

import signal
import threading
from uuid import uuid4

import httpx
import pytest

from tests.service.node import ScriptedNode


@pytest.fixture
def node_of(keys):
    nodes = []

    def start(adapter) -> ScriptedNode:
        nodes.append(ScriptedNode(adapter.url, keys))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


def send(adapter, keys, command, key) -> httpx.Response:
    headers = {"Authorization": f"Bearer {keys.client('acme')}", "Idempotency-Key": f'"{key}"'}
    url = f"{adapter.url}/v1/nodes/n1/jobs"
    return httpx.post(url, json=command, headers=headers, timeout=10, trust_env=False)


def accepted(adapter, keys, command, key) -> httpx.Response:
    """Retry, as a product does, until the node is back on the adapter."""
    answers: list[httpx.Response] = []

    def try_again() -> bool:
        answers.append(send(adapter, keys, command, key))
        return answers[-1].status_code == 202

    adapter.until(try_again, "the command to be accepted")
    return answers[-1]


def test_killed_while_the_node_decides_the_retry_gets_the_replay(
    own_adapter, node_of, keys, command
):
    adapter = own_adapter(verdict_timeout_seconds=15)
    node = node_of(adapter)
    accepted(adapter, keys, {**command, "job_id": "warm-up"}, uuid4())
    node.received.clear()
    node.deciding.clear()
    key, broken = uuid4(), []

    def submit() -> None:
        try:
            send(adapter, keys, command, key)
        except httpx.TransportError as error:
            broken.append(error)

    client = threading.Thread(target=submit)
    client.start()
    adapter.until(lambda: node.received, "the node to have the command")
    adapter.stop(signal.SIGKILL)
    client.join(10)
    assert broken, "the client must not get an answer from a dead adapter"
    node.deciding.set()
    adapter.start()

    answer = accepted(adapter, keys, command, key)

    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json()["job_id"] == command["job_id"]
    again = accepted(adapter, keys, command, key)
    assert again.json() == answer.json()


def test_told_to_stop_it_ends_at_once_although_polls_are_open(own_adapter, node_of, keys, command):
    adapter = own_adapter()
    node = node_of(adapter)
    accepted(adapter, keys, command, uuid4())

    adapter.stop(signal.SIGTERM)

    assert "Application shutdown complete" in adapter.log.read_text()
    assert "timeout graceful shutdown exceeded" not in adapter.log.read_text()
    assert node.problems == []


def test_told_to_stop_it_answers_who_waits_for_a_verdict(own_adapter, node_of, keys, command):
    """With the truth: the node has seen the command, its verdict will not come."""
    adapter = own_adapter(verdict_timeout_seconds=60)
    node = node_of(adapter)
    accepted(adapter, keys, {**command, "job_id": "warm-up"}, uuid4())
    node.received.clear()
    node.deciding.clear()
    answers = []
    client = threading.Thread(target=lambda: answers.append(send(adapter, keys, command, uuid4())))
    client.start()
    adapter.until(lambda: node.received, "the node to have the command")

    adapter.stop(signal.SIGTERM)

    client.join(10)
    assert [answer.status_code for answer in answers] == [504]


def test_the_log_names_things_and_no_secret(own_adapter, node_of, keys, command):
    adapter = own_adapter()
    node_of(adapter)
    command["workload"]["env"] = {"TOKEN": "hunter2"}
    answer = accepted(adapter, keys, command, uuid4())

    log = adapter.log.read_text()

    assert '"event": "job.accepted"' in log
    assert answer.json()["submission_id"] in log
    assert "hunter2" not in log
    assert "Bearer" not in log
    assert keys.client("acme").split(".", maxsplit=1)[0] not in log


def test_a_node_that_went_away_does_not_swallow_commands(own_adapter, node_of, keys, command):
    """Its open poll ends with its connection: the next command goes to who is there."""
    adapter = own_adapter(redelivery_seconds=60, verdict_timeout_seconds=10)
    headers = {"Authorization": f"Bearer {keys.node('n1')}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{adapter.url}/v1/nodes/n1/commands/poll",
            headers=headers,
            timeout=httpx.Timeout(5, read=0.2),
            trust_env=False,
        )
    node_of(adapter)

    assert send(adapter, keys, command, uuid4()).status_code == 202


def test_without_configuration_it_lives_but_is_not_ready(own_adapter, monkeypatch):
    monkeypatch.setattr("tests.service.adapter_process.Adapter._ready", _alive)
    adapter = own_adapter(client_issuers=[], nodes={}, registry=False)

    answer = httpx.get(f"{adapter.url}/readyz", trust_env=False)

    assert answer.status_code == 503
    assert answer.json()["missing"] == ["client_issuers", "nodes"]


def _alive(adapter) -> bool:
    try:
        return httpx.get(f"{adapter.url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
