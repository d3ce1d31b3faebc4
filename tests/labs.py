"""Labs of tests: a directory that is swept and removed whatever happens, and the whole stack with its two tenants.

The fixtures are for the `conftest.py` of a tier that needs the stack: it imports them by their names.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from lab import convex, process, stack, watch
from lab.paths import LabPaths
from lab.process import sweep

__all__ = [
    "SIGNED_TOKEN",
    "TERMINAL",
    "Client",
    "acme",
    "database",
    "globex",
    "lab",
    "lab_paths",
    "scratch_lab",
]

JOB_SECONDS = 90.0
SIGNED_TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")
"""Any signed token, whoever made it: a detached signature has nothing in its middle."""
TERMINAL = ("succeeded", "failed", "cancelled")


@contextmanager
def scratch_lab(purpose: str) -> Iterator[LabPaths]:
    """An empty lab. Not below tmp_path: that is closed to the service user, and too long for sockets."""
    parent = Path(tempfile.mkdtemp(prefix=f"byoc-{purpose}-"))
    parent.chmod(0o755)
    paths = LabPaths(parent / "lab")
    try:
        yield paths
    finally:
        sweep(LabPaths(paths.root))
        for place in LabPaths(paths.root).places():
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(parent)


@dataclass
class Client:
    """A product's backend for one tenant."""

    lab: dict[str, Any]
    tenant: dict[str, Any]
    index: int
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.lab["adapter"]["url"],
            headers={"Authorization": f"Bearer {self.tenant['token']}"},
            timeout=60,
        )

    @property
    def jobs(self) -> str:
        """The path of the node's jobs."""
        return f"/v1/nodes/{self.lab['node']['node_id']}/jobs"

    def command(self, *argv: str, **changes: Any) -> dict[str, Any]:
        """A valid SubmitJobCommand with a new job id."""
        return {
            "schema_version": "1",
            "tenant_id": self.tenant["tenant_id"],
            "workspace_id": self.tenant["workspace_id"],
            "job_id": f"job-{uuid.uuid4().hex[:12]}",
            "management_node_id": self.lab["node"]["node_id"],
            "execution_profile": {"queue_name": self.lab["queue_name"]},
            "resource_shape": {"cpu": 1, "memory_mib": 128, "walltime_seconds": 300},
            "workload": {
                "kind": "container",
                "image": self.lab["images"][0]["ref"],
                "argv": list(argv) or ["true"],
                **changes.pop("workload", {}),
            },
            "requested_by": {"user_id": self.tenant["user_id"]},
            **changes,
        }

    def submit(self, command: Any, key: str | None = None, **headers: str) -> httpx.Response:
        """POST a command under a key, by default a new one."""
        named = {"Idempotency-Key": f'"{key or uuid.uuid4()}"', **headers}
        return self.http.post(self.jobs, json=command, headers=named)

    def cancel(self, job_id: str) -> httpx.Response:
        """POST a CancelJobCommand."""
        command = {
            "schema_version": "1",
            "tenant_id": self.tenant["tenant_id"],
            "workspace_id": self.tenant["workspace_id"],
            "job_id": job_id,
            "management_node_id": self.lab["node"]["node_id"],
            "requested_by": {"user_id": self.tenant["user_id"]},
        }
        return self.http.post(f"{self.jobs}/{job_id}/cancel", json=command)

    def projection(self, job_id: str) -> dict[str, Any]:
        """What the tenant's user sees of the job."""
        return watch.projection(self.lab, job_id, self.index)

    def wait(self, job_id: str, *states: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """Poll the projection until it is in one of the states, by default a terminal one."""
        wanted = states or TERMINAL

        def reached() -> dict[str, Any] | None:
            seen = self.projection(job_id)
            return seen if seen.get("state") in wanted else None

        logs = [Path(self.lab["node"][name]) for name in ("log", "daemon_log")]
        found = process.wait_until(
            reached, seconds, f"{job_id} to be {' or '.join(wanted)}", logs=logs
        )
        assert found is not None
        return found

    def query(self, function: str, **arguments: Any) -> Any:
        """Ask the product as the tenant's user."""
        return self.call("query", function, **arguments)

    def call(self, kind: str, function: str, **arguments: Any) -> Any:
        """Call a function of the product, a `query`, `mutation` or `action`, as the tenant's user."""
        where = self.lab["convex"]
        product = convex.Convex(
            url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"]
        )
        return convex.call(
            product,
            kind,
            function,
            {"tenant_id": self.tenant["tenant_id"], **arguments},
            authorization=f"Bearer {self.tenant['token']}",
        )


@pytest.fixture(scope="package")
def lab_paths() -> Iterator[LabPaths]:
    """Where the stack of a tier lives: each that imports this has its own."""
    with scratch_lab("stack") as paths:
        yield paths
        stack.down(paths)


@pytest.fixture(scope="package")
def lab(lab_paths: LabPaths) -> dict[str, Any]:
    """What `lab.json` says of the running stack."""
    return stack.up(lab_paths)


@pytest.fixture(scope="package")
def acme(lab: dict[str, Any]) -> Client:
    """The first tenant."""
    return Client(lab=lab, tenant=lab["tenants"][0], index=0)


@pytest.fixture(scope="package")
def globex(lab: dict[str, Any]) -> Client:
    """The second tenant."""
    return Client(lab=lab, tenant=lab["tenants"][1], index=1)


@pytest.fixture
def database(lab: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """The node's Postgres, to see what was written."""
    with psycopg.connect(lab["postgres"]["dsn"], autocommit=True) as connection:
        yield connection
