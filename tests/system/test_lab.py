"""`make up`, `make demo` and `make down`: what everybody meets the system by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiida_byoc.contracts.enrolment import thumbprint
from lab import convex, process, proctable, stack
from lab.paths import LabPaths
from tests.labs import scratch_lab

CONVEX_FIELDS = ("url", "site_url", "admin_key")


def lab_command(
    paths: LabPaths, command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What the Makefile runs."""
    return subprocess.run(
        [sys.executable, "-m", "lab", command],
        env={**os.environ, "BYOC_LAB_DIR": str(paths.root), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_lab_json_says_where_everything_is(lab: dict[str, Any], lab_paths: LabPaths) -> None:
    """Every key of DESIGN §6, processes that live, logs that exist, readable by nobody else."""
    file = lab_paths.root / stack.LAB_FILE

    assert json.loads(file.read_text()) == lab
    assert file.stat().st_mode & 0o077 == 0
    pids = [
        lab["adapter"]["pid"],
        lab["convex"]["pid"],
        lab["node"]["agent_pid"],
        lab["postgres"]["pid"],
        lab["slurm"]["slurmctld_pid"],
        *lab["slurm"]["slurmd_pids"],
    ]
    assert [pid for pid in pids if proctable.Process.read(pid) is None] == []
    logs = [
        lab["adapter"]["log"],
        lab["convex"]["log"],
        lab["node"]["log"],
        lab["node"]["daemon_log"],
    ]
    assert [log for log in logs if not Path(log).is_file()] == []
    assert {"url", "site_url", "admin_key"} <= lab["convex"].keys()
    assert {"node_id", "aiida_path", "profile"} <= lab["node"].keys()
    assert len(lab["tenants"]) >= 2
    assert {"tenant_id", "workspace_id", "user_id", "token"} <= lab["tenants"][0].keys()
    assert {"ref", "digest"} <= lab["images"][0].keys()
    signing_key = Path(lab["product"]["signing_key_file"])
    assert signing_key.stat().st_mode & 0o077 == 0
    assert thumbprint(json.loads(signing_key.read_text())) == lab["product"]["key_id"]


def test_the_owner_sees_the_node_online_with_its_inventory(lab: dict[str, Any]) -> None:
    """What the agent reports has come all the way, and the product finds nothing amiss."""
    owner = lab["tenants"][0]
    product = convex.Convex(**{name: lab["convex"][name] for name in CONVEX_FIELDS})
    args = {"tenant_id": owner["tenant_id"], "node_id": lab["node"]["node_id"]}

    def node() -> dict[str, Any]:
        shown: dict[str, Any] = convex.call(
            product, "query", "nodes:get", args, f"Bearer {owner['token']}"
        )
        return shown

    process.wait_until(lambda: node()["status"]["state"] == "online", 30, "the node to be online")

    assert node()["owned"]
    assert node()["status"]["reasons"] == []
    assert node()["heartbeat"]["report"]["queues"]


def test_up_again_finds_the_lab(lab: dict[str, Any], lab_paths: LabPaths) -> None:
    """Nothing is started twice."""
    outcome = lab_command(lab_paths, "up")

    assert outcome.returncode == 0, outcome.stderr
    assert stack.read(lab_paths) == lab


def test_the_demonstration_passes_on_the_lab_that_is_up(
    lab: dict[str, Any], lab_paths: LabPaths
) -> None:
    """It shows events, projection and summary, checks them, and leaves the lab running."""
    outcome = lab_command(lab_paths, "demo")

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "✗" not in outcome.stdout
    assert "projection" in outcome.stdout
    assert lab["images"][0]["digest"] in outcome.stdout
    assert stack.is_up(lab_paths)


def test_a_part_that_does_not_start_is_shown_and_nothing_stays() -> None:
    """The error holds the end of that part's log; what had started is stopped again."""
    with scratch_lab("broken") as paths:
        outcome = lab_command(paths, "up", NODE_OPTIONS="--require=/nonexistent/part.js")

        assert outcome.returncode == 1
        assert "the Convex functions" in outcome.stderr
        assert "/nonexistent/part.js" in outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert proctable.belonging(paths) == {}
        assert not (paths.root / stack.LAB_FILE).exists()


def test_down_after_a_crash_leaves_nothing() -> None:
    """Every recorded daemon is killed; `down` finds what still lives, and removes sockets and directories."""
    with scratch_lab("crash") as paths:
        outcome = lab_command(paths, "up")
        assert outcome.returncode == 0, outcome.stderr
        places = paths.places()
        for daemon in process.recorded(paths).values():
            os.kill(daemon.pid, signal.SIGKILL)

        down = lab_command(paths, "down")

        assert down.returncode == 0, down.stderr
        assert [place for place in places if place.exists()] == []
        assert proctable.belonging(LabPaths(paths.root)) == {}
        assert str(paths.root) not in Path("/proc/self/mounts").read_text()
        sockets = Path("/proc/net/unix").read_text()
        assert [place for place in places if str(place) in sockets] == []
