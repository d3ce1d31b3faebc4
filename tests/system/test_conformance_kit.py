"""The conformance kit as its own program, in the place of an adapter: a node as `make up` makes it keeps every MUST."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import credentials, image, node, postgres, slurm
from lab.paths import LabPaths
from tests.labs import scratch_lab

ROOT = Path(__file__).parents[2]
TENANTS = ["acme", "globex"]
PATIENCE = 180
"""What a node may take for a decision or a delivery, and until it is there, in seconds."""
RUN_SECONDS = 540


@pytest.fixture
def paths() -> Iterator[LabPaths]:
    """A lab of this test's own: what the kit acknowledges no product ever hears of."""
    with scratch_lab("kit") as paths:
        yield paths


def test_our_node_keeps_every_must(paths: LabPaths) -> None:
    listen = f"127.0.0.1:{paths.ports('adapter')[0]}"
    built = image.build(paths)
    command = {
        "schema_version": "1",
        "tenant_id": TENANTS[0],
        "workspace_id": "conformance",
        "job_id": "replaced-by-the-kit",
        "management_node_id": node.NODE_ID,
        "execution_profile": {"queue_name": node.QUEUE},
        "resource_shape": {"cpu": 1, "memory_mib": 128, "walltime_seconds": 60},
        "workload": {"kind": "container", "image": built.ref, "argv": ["true"]},
        "requested_by": {"user_id": "conformance"},
    }
    known = {
        "node_id": node.NODE_ID,
        "listen": listen,
        "command": command,
        "other_tenant_id": TENANTS[1],
        "patience_seconds": PATIENCE,
    }
    settings = paths.root / "kit.json"
    settings.write_text(json.dumps(known))
    argv = [sys.executable, "-m", "aiida_byoc.contracts.conformance", "--node"]
    database, cluster = postgres.start(paths), slurm.start(paths)

    with subprocess.Popen(
        [*argv, "--settings", str(settings)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as kit:  # fmt: skip
        try:
            node.start(
                paths,
                postgres=database,
                slurm=cluster,
                image=built,
                credentials=credentials.make(paths, TENANTS),
                adapter_url=f"http://{listen}",
            )
            table, notes = kit.communicate(timeout=RUN_SECONDS)
        finally:
            kit.kill()

    assert table.splitlines()[-1].endswith("kept, 0 broken, 0 not tested"), table + notes
    assert kit.returncode == 0
    assert f"waiting for the node {node.NODE_ID} at http://{listen}" in notes
