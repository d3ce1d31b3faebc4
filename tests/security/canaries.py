"""Jobs and requests that were given canaries, values that nobody but their owner may see, and what was seen of them."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.paths import LabPaths
from lab.process import wait_until
from tests.https_store import Answer, Store, https_store
from tests.labs import Client

__all__ = ["GIVEN", "Seen", "seen", "store"]

FETCHED = b"fetched\n"
GIVEN = ("env", "input", "url")
"""Where a job was given one."""


@dataclass
class Seen:
    """A job that was given canaries, and what could be seen of it from outside while it ran."""

    canaries: dict[str, str]
    job_id: str
    gone: str
    processes: str
    scheduler: str
    problems: str


def canary(kind: str) -> str:
    return f"canary-{kind}-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def store(lab_paths: LabPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Where the node may fetch from; a URL of it opens something by the signature in its query."""
    policy = lab_paths.root / "policy.toml"
    before = policy.read_text()
    with https_store(tmp_path_factory.mktemp("store")) as store:
        hosts = f'private_hosts = ["localhost:{store.port}"]\nca_file = "{store.ca_file}"\n'
        policy.write_text(f"{before}\n[data]\n{hosts}")
        yield store
    policy.write_text(before)


def signed_url(store: Store, path: str, signature: str) -> dict[str, str]:
    url = store.url(f"{path}?signature={signature}")
    return {"name": "fetched", "url": url, "sha256": hashlib.sha256(FETCHED).hexdigest()}


@pytest.fixture(scope="module")
def seen(acme: Client, lab: dict[str, Any], store: Store) -> Seen:
    """Jobs with canaries in variables and inputs; the one fails by itself, the other as there is nothing to fetch."""
    canaries = {kind: canary(kind) for kind in (*GIVEN, "refused")}
    store.answers[f"/there?signature={canaries['url']}"] = Answer(FETCHED)
    workload = {
        "env": {"PASSWORD": canaries["env"]},
        "inputs": [
            {"name": "secret", "text": canaries["input"]},
            signed_url(store, "/there", canaries["url"]),
        ],
        "outputs": [{"name": "go"}],
    }
    gone = acme.command("true", workload={"inputs": [signed_url(store, "/gone", canaries["url"])]})
    assert acme.submit(gone).status_code == 202
    command = acme.command(
        "sh", "-c", "test -n $PASSWORD && echo begun; sleep 8; exit 3", workload=workload
    )
    job_id = command["job_id"]
    assert acme.submit(command).status_code == 202
    wait_until(
        lambda: "begun" in acme.http.get(f"{acme.jobs}/{job_id}/logs").text, 90, "the job to begin"
    )
    processes, scheduler = _command_lines(), _scheduler(lab)
    assert [acme.wait(job)["state"] for job in (job_id, gone["job_id"])] == ["failed"] * 2
    told = acme.projection(gone["job_id"])["error"]["message"]
    assert "cannot be fetched from localhost" in told
    problems = "\n".join(answer.text for answer in _refusals(acme, canaries["refused"]))
    return Seen(canaries, job_id, gone["job_id"], processes, scheduler, problems)


def _command_lines() -> str:
    """The arguments of every process on the machine, as anybody may read them."""
    lines = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(place.read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return "\n".join(lines)


def _slurm(lab: dict[str, Any], *argv: str) -> str:
    environment = {**os.environ, "SLURM_CONF": lab["slurm"]["conf"]}
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def _scheduler(lab: dict[str, Any]) -> str:
    """What Slurm shows of its jobs, their scripts included."""
    shown = _slurm(lab, "scontrol", "show", "job", "-dd")
    ids = re.findall(r"JobId=(\d+)", shown)
    assert ids
    scripts = [_slurm(lab, "scontrol", "write", "batch_script", each, "-") for each in ids]
    return "\n".join([shown, _slurm(lab, "squeue", "-o", "%all"), *scripts])


def _refusals(acme: Client, value: str) -> Iterator[httpx.Response]:
    """The value at every place of a command where it is refused."""
    good = acme.command("true")
    for changes in (
        {"surprise": value},
        {"job_id": f"{value}\n"},
        {"workload": {**good["workload"], "image": value}},
        {"workload": {**good["workload"], "env": {"LD_PRELOAD": value}}},
        {"workload": {**good["workload"], "env": {"A": [value]}}},
        {"workload": {**good["workload"], "inputs": [{"name": "../x", "text": value}]}},
        {"workload": {**good["workload"], "inputs": [{"name": "x", "text": value, "path": "/x"}]}},
        {"workload": {**good["workload"], "inputs": [_elsewhere(value)]}},
        {"requested_by": {"user_id": f"{value}\n"}},
        {"tenant_id": value},
        {"management_node_id": value},
        {"execution_profile": {"queue_name": value}},
    ):
        response = acme.submit({**good, **changes})
        assert 400 <= response.status_code < 500, response.text
        yield response
    yield acme.http.get(f"{acme.jobs}/{value}!")
    yield acme.http.get(f"{acme.jobs}/{good['job_id']}/logs", params={"offset": value})
    yield acme.http.get(acme.jobs, headers={"Authorization": f"Bearer {value}"})
    yield acme.http.post(
        "/v1/nodes:enroll", json={"node_id": "n", "secret": value, "public_key": {}}
    )


def _elsewhere(value: str) -> dict[str, str]:
    """An input from where the policy lets nobody fetch."""
    url = f"https://elsewhere.example/x?signature={value}"
    return {"name": "x", "url": url, "sha256": "0" * 64}
