"""The demonstration: a job that succeeds, a replay of its key, a job that fails; seen live, checked at the end."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from lab import watch

__all__ = ["run"]

NUMBERS = list(range(1, 1001))
PROGRAM = """\
import json, pathlib
numbers = json.loads(pathlib.Path("numbers.json").read_text())
print("summing", len(numbers), "squares")
pathlib.Path("result.json").write_text(json.dumps({"sum_of_squares": sum(n * n for n in numbers)}))
"""
EXPECTED = json.dumps({"sum_of_squares": sum(number * number for number in NUMBERS)})
JOB_SECONDS = 120.0


def run(lab: Mapping[str, Any]) -> int:
    """Show the main job, its replay and a failing job; 0 only if each ended as it should."""
    client = _client(lab)
    workload = {
        "kind": "container",
        "image": lab["images"][0]["ref"],
        "argv": ["python3", "sum.py"],
        "inputs": [
            {"name": "sum.py", "text": PROGRAM},
            {"name": "numbers.json", "text": json.dumps(NUMBERS)},
        ],
        "outputs": [{"name": "result.json"}],
    }
    command = _command(lab, "demo", workload)
    key = str(uuid.uuid4())

    if "page" in lab:
        print(f"\n── Watch it in a browser while this runs: {lab['page']['url']}")

    print("\n── A job: the sum of 1000 squares, in a container, through Slurm")
    submitted = datetime.now(UTC)
    first = _submit(client, lab, command, key)
    answered = datetime.now(UTC)
    story = watch.follow(lab, first["submission_id"], command["job_id"], JOB_SECONDS)
    content = _stored_output(lab, story.projection.get("execution_id", ""), "result.json")
    _summarise(story, submitted=submitted, answered=answered, content=content)

    print("\n── The same key again")
    again = _submit(client, lab, command, key)

    print("\n── A job that fails: exit code 3")
    failing = _command(
        lab,
        "fails",
        {
            "kind": "container",
            "image": lab["images"][0]["ref"],
            "argv": ["sh", "-c", "echo no luck >&2; exit 3"],
        },
    )
    refused = _submit(client, lab, failing, str(uuid.uuid4()))
    failed = watch.follow(lab, refused["submission_id"], failing["job_id"], JOB_SECONDS)
    error = failed.projection.get("error", {})
    print(
        f"   projection: {failed.projection.get('state')}, {error.get('code')}: {error.get('message')}"
    )

    outputs = {each["name"]: each for each in story.projection.get("result", {}).get("outputs", [])}
    digest = hashlib.sha256(EXPECTED.encode()).hexdigest()
    checks = {
        "the projection says succeeded": story.projection.get("state") == "succeeded",
        "the output holds what the container computed": content == EXPECTED,
        "its hash in the projection is the file's": outputs.get("result.json", {}).get("sha256")
        == digest,
        "the replay got the same answer": again == first,
        "there is one job for the key": watch.jobs_of_key(lab, key) == 1,
        "the failed job says why": (failed.projection.get("state"), error.get("code"))
        == ("failed", "container_failed"),
    }
    print()
    for what, holds in checks.items():
        print(f"   {'✓' if holds else '✗'} {what}")
    return 0 if all(checks.values()) else 1


def _client(lab: Mapping[str, Any]) -> httpx.Client:
    token = lab["tenants"][0]["token"]
    return httpx.Client(
        base_url=lab["adapter"]["url"], headers={"Authorization": f"Bearer {token}"}, timeout=60
    )


def _command(lab: Mapping[str, Any], name: str, workload: Mapping[str, Any]) -> dict[str, Any]:
    tenant = lab["tenants"][0]
    return {
        "schema_version": "1",
        "tenant_id": tenant["tenant_id"],
        "workspace_id": tenant["workspace_id"],
        "job_id": f"{name}-{uuid.uuid4().hex[:8]}",
        "management_node_id": lab["node"]["node_id"],
        "execution_profile": {"queue_name": lab["queue_name"]},
        "resource_shape": {"cpu": 1, "memory_mib": 256, "walltime_seconds": 300},
        "workload": workload,
        "requested_by": {"user_id": tenant["user_id"]},
    }


def _submit(
    client: httpx.Client, lab: Mapping[str, Any], command: Mapping[str, Any], key: str
) -> dict[str, Any]:
    path = f"/v1/nodes/{lab['node']['node_id']}/jobs"
    response = client.post(path, json=command, headers={"Idempotency-Key": f'"{key}"'})
    replayed = response.headers.get("Idempotency-Replayed")
    print(f"   POST {path} → {response.status_code}{' (replayed)' if replayed else ''}")
    print(f"   {response.text}")
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def _stored_output(lab: Mapping[str, Any], execution_id: str, name: str) -> str:
    """The output as AiiDA's provenance holds it."""
    command = [sys.executable, "-m", "lab.provenance", lab["node"]["profile"], execution_id, name]
    outcome = subprocess.run(
        command,
        env=lab["node"]["environment"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return outcome.stdout if outcome.returncode == 0 else f"(no output: {outcome.stderr.strip()})"


def _summarise(
    story: watch.Story, *, submitted: datetime, answered: datetime, content: str
) -> None:
    projection = story.projection
    result, scheduler = projection.get("result", {}), projection.get("scheduler", {})
    timings = {
        name: datetime.fromisoformat(time) for name, time in projection.get("timings", {}).items()
    }
    facts = {
        "job": projection.get("job_id"),
        "AiiDA work chain": projection.get("execution_id"),
        "Slurm job": f"{scheduler.get('job_id')} on {', '.join(scheduler.get('nodes', [])) or '(not seen)'}",
        "image": result.get("image_digest"),
        "exit code": result.get("exit_code"),
        "usage": result.get("usage"),
        "result.json": content,
    }
    for output in result.get("outputs", []):
        facts[f"sha256 of {output['name']}"] = f"{output['sha256']} ({output['size']} bytes)"
    print()
    for name, fact in facts.items():
        print(f"   {name:<24} {fact}")
    moments = [
        ("submitted", submitted),
        ("accepted (202)", answered),
        ("work chain launched", story.occurred.get("launched")),
        ("queued in Slurm", story.occurred.get("queued")),
        ("container started", timings.get("started")),
        ("container ended", timings.get("ended")),
        ("outcome known", story.occurred.get(projection.get("execution_state", ""))),
        ("projection visible", story.visible),
    ]
    print()
    for name, moment in moments:
        if moment is not None:
            print(f"   {name:<24} +{(moment - submitted).total_seconds():6.3f} s")
