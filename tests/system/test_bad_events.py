"""What a node tells wrongly is set aside: users see nothing of it, and the node's jobs go on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from lab.credentials import ADAPTER_AUDIENCE
from lab.paths import LabPaths

BATCH = "application/cloudevents-batch+json"


@pytest.fixture
def told_by_the_node(lab: dict[str, Any], lab_paths: LabPaths) -> Iterator[httpx.Client]:
    """Speaks to the adapter with the node's own key, beside its agent."""
    node_id, now = lab["node"]["node_id"], int(time.time())
    claims = {"iss": node_id, "sub": node_id, "aud": ADAPTER_AUDIENCE, "iat": now, "exp": now + 300}
    key = (lab_paths.directory("keys") / "node.pem").read_bytes()
    token = jwt.encode(claims, key, algorithm="EdDSA")
    with httpx.Client(
        base_url=f"{lab['adapter']['url']}/v1/nodes/{node_id}",
        headers={"Authorization": f"Bearer {token}", "Content-Type": BATCH},
        timeout=60,
    ) as client:
        yield client


def event(job: dict[str, Any], submission_id: str, **data: Any) -> dict[str, Any]:
    """What the node might have told first of a job that users see like this."""
    content = {
        **{name: job[name] for name in ("tenant_id", "workspace_id", "job_id", "trace_id")},
        **({"epoch": job["epoch"]} if "epoch" in job else {}),
        "submission_id": submission_id,
        "seq": 1,
        "attempt": 1,
        "state": "accepted",
        "occurred_at": job["occurred_at"],
        **data,
    }
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"/nodes/{job['node_id']}",
        "type": f"org.aiida-byoc.execution.{content['state']}.v1",
        "subject": content["job_id"],
        "time": job["occurred_at"],
        "data": content,
    }


def test_bad_events_are_set_aside_and_jobs_go_on(acme: Any, told_by_the_node: httpx.Client) -> None:
    """I14: a fact told otherwise, one of another node, one of nobody's tenant, and junk, while a job is running."""
    done, running = acme.command("true"), acme.command("sleep", "5")
    submission = acme.submit(done).json()["submission_id"]
    seen = acme.wait(done["job_id"])
    acme.submit(running)
    strangers = [str(uuid.uuid4()) for _ in range(2)]
    batch = [
        event(seen, submission, reason="told otherwise"),
        {**event(seen, strangers[0], job_id="another-nodes"), "source": "/nodes/another"},
        event(seen, strangers[1], tenant_id="nobodys", job_id="nobodys"),
        "junk",
    ]

    answers = [told_by_the_node.post("/events", json=batch) for _ in range(2)]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.json()["next_seq"] == {}
        assert {one.get("submission_id"): one["code"] for one in answer.json()["quarantined"]} == {
            submission: "seq_conflict",
            strangers[0]: "forbidden",
            strangers[1]: "forbidden",
            None: "validation-failed",
        }
    assert acme.projection(done["job_id"]) == seen
    assert acme.projection("another-nodes") == {}
    assert acme.wait(running["job_id"])["state"] == "succeeded"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "problem"),
    [
        (b"\x00\xff", BATCH, 400, "malformed-request"),
        (b'[{"seq": NaN}]', BATCH, 400, "malformed-request"),
        (b'[{"a": 1, "a": 2}]', BATCH, 400, "malformed-request"),
        (b"[" * 100_000, BATCH, 400, "malformed-request"),
        (b"[]", BATCH, 422, "validation-failed"),
        (b"[]", "text/plain", 415, "unsupported-media-type"),
        (b" " * (8 * 1024 * 1024 + 1), BATCH, 413, "payload-too-large"),
    ],
    ids=["junk", "NaN", "a name twice", "deep", "empty", "media type", "size"],
)
def test_what_is_no_batch_of_events_is_a_problem(
    told_by_the_node: httpx.Client, body: bytes, content_type: str, status: int, problem: str
) -> None:
    """I21: whoever sends it."""
    response = told_by_the_node.post(
        "/events", content=body, headers={"Content-Type": content_type}
    )

    assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (status, problem)
