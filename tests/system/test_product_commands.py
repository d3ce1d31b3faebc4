"""What users ask of the product itself: it brings their commands to the node, and shows what becomes of them."""

from __future__ import annotations

import uuid
from typing import Any


def submit(client: Any, *argv: str, **changes: Any) -> str:
    """Submit a job to the product; it is there at once."""
    command = client.command(*argv, **changes)
    asked = {name: command[name] for name in ("execution_profile", "resource_shape", "workload")}
    job_id = f"product-{uuid.uuid4().hex[:12]}"
    client.call(
        "mutation",
        "commands:submitJob",
        workspace_id=client.tenant["workspace_id"],
        node_id=client.lab["node"]["node_id"],
        job_id=job_id,
        command=asked,
    )
    assert client.query("jobs:get", job_id=job_id)["node_id"] == client.lab["node"]["node_id"]
    return job_id


def test_a_job_that_the_product_is_asked_for_runs_and_succeeds(acme, rows):
    before = rows()

    job_id = submit(
        acme, "sh", "-c", "echo 42 > answer", workload={"outputs": [{"name": "answer"}]}
    )

    job = acme.wait(job_id)
    assert job["state"] == "succeeded", job
    assert job["result"]["outputs"][0]["name"] == "answer"
    [command] = acme.query("commands:list", job_id=job_id)
    assert (command["operation"], command["state"]) == ("submit", "accepted")
    assert rows() == before + 1
    [attempt] = acme.query("jobs:attempts", job_id=job_id)
    assert (attempt["state"], "started" in attempt, "ended" in attempt) == ("succeeded", True, True)
    usage = acme.query("usage:summary", workspace_id=acme.tenant["workspace_id"])
    assert usage["by_workspace"][0]["succeeded"] >= 1


def test_a_job_beyond_the_policy_fails_and_says_where(acme, rows):
    before = rows()
    shape = {
        "cpu": 4096,
        "memory_mib": 128,
        "walltime_seconds": 300,
    }  # all that the contract admits

    job_id = submit(acme, "true", resource_shape=shape)

    error = acme.wait(job_id, "failed")["error"]
    assert error["code"] == "policy-refused"
    assert "resource_shape.cpu" in error["message"]
    assert rows() == before


def test_a_running_job_is_cancelled(acme):
    job_id = submit(acme, "sleep", "300")
    acme.wait(job_id, "running")

    acme.call("mutation", "commands:cancelJob", job_id=job_id, reason="enough")

    assert acme.wait(job_id)["state"] == "cancelled"
    states = {one["operation"]: one["state"] for one in acme.query("commands:list", job_id=job_id)}
    assert states == {"submit": "accepted", "cancel": "accepted"}
