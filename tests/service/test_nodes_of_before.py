"""Whatever a node of version 1 has ever been right to say, the adapter hears: an update of adapters cuts no node off.

The golden messages are what nodes of each version say, for they are only ever added.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.contracts.messages import golden, golden_names
from tests.service.enrolled import NodeKey, bearer


def goldens(kind: str) -> list[str]:
    return [name for name in golden_names() if name.partition(".")[0] == kind]


@pytest.fixture
def own(convex) -> tuple[str, NodeKey]:
    """A node of tenant acme that nobody else speaks for."""
    node_id, key = f"node-{uuid4()}", NodeKey()
    convex.registry.enrol(node_id, key.key_id, key.jwk, "acme")
    return node_id, key


def say(http, own: tuple[str, NodeKey], path: str, message: Any):
    """As an agent before access tokens does: each request under a signature of its own."""
    node_id, key = own
    token = key.assertion(node_id, head={}, jti=None)
    return http.post(f"/v1/nodes/{node_id}/{path}", json=message, headers=bearer(token))


@pytest.mark.parametrize("name", goldens("poll-request"))
def test_it_polls(name: str, http, own) -> None:
    response = say(http, own, "commands/poll", golden(name) | {"wait_seconds": 0})

    assert (response.status_code, response.json()) == (
        200,
        {"commands": [], "takes_verdicts": True},
    )


@pytest.mark.parametrize("name", goldens("heartbeat"))
def test_it_says_that_it_lives(name: str, http, convex, own) -> None:
    response = say(http, own, "heartbeat", golden(name))

    assert response.status_code == 200, response.text
    assert convex.heartbeats[-1]["node_id"] == own[0]


@pytest.mark.parametrize("name", goldens("execution-event"))
def test_it_tells_of_its_jobs(name: str, http, convex, own) -> None:
    job = str(uuid4())
    told = golden(name) | {"source": f"/nodes/{own[0]}", "subject": job}
    told["data"] |= {"tenant_id": "acme", "submission_id": job, "job_id": job}

    response = say(http, own, "events", [told])

    seq = told["data"]["seq"]
    assert response.status_code == 200, response.text
    assert (response.json()["quarantined"], response.json()["next_seq"]) == ([], {job: seq + 1})
    assert convex.stored[-1] == f"{job}:{seq}"


@pytest.mark.parametrize("name", goldens("verdict"))
def test_it_decides(name: str, node, asked, command) -> None:
    """What the node answers is the client's answer, by whatever route the client asked."""
    verdict = _of_n1(golden(name))
    if "receipt" in verdict:  # what it says of itself is what the adapter holds it to
        statement = json.loads(base64.b64decode(verdict["receipt"]["payload"]))
        payload = base64.b64encode(json.dumps(_of_n1(statement)).encode())
        verdict["receipt"]["payload"] = payload.decode()
    node.knows("logs", "receipt")
    node.decide = lambda _: verdict

    response = asked(verdict, command | {"job_id": "relax-0042"})

    assert response.status_code == verdict.get("problem", {}).get("status", response.status_code)
    assert response.is_success == ("problem" not in verdict), response.text
    assert node.problems == []


def _of_n1(message: Any) -> Any:
    return json.loads(json.dumps(message).replace("cluster-1", "n1"))


@pytest.fixture
def asked(http, keys, submit):
    """Ask for what the verdict is an answer to."""
    kept = ("schema_version", "tenant_id", "workspace_id", "job_id", "management_node_id")

    def ask(verdict: dict[str, Any], command: dict[str, Any]):
        url, headers = "/v1/nodes/n1/jobs/relax-0042", bearer(keys.client("acme"))
        if "cancellation" in verdict:
            body = {name: command[name] for name in (*kept, "requested_by")}
            return http.post(f"{url}/cancel", json=body, headers=headers)
        paths = {"job": url, "log": f"{url}/logs", "receipt": f"{url}/receipt"}
        found = [path for part, path in paths.items() if part in verdict]
        return http.get(found[0], headers=headers) if found else submit(command)

    return ask
