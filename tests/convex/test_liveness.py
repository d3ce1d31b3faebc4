"""How a node is shown over HTTP: heard, in trouble, silent; draining by its owner's wish.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiida_byoc.contracts.delivery import Heartbeat, Partition
from lab.process import wait_until

OFFLINE_AFTER = timedelta(seconds=60)
"""As `convex/status.ts` has it."""


@pytest.fixture
def beat(deployment, tenant):
    def send(**report: Any) -> None:
        received_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        args = {"node_id": tenant.node_id, "report": report, "received_at": received_at}
        answer = deployment.call("mutation", "nodes:recordHeartbeat", args, tenant.service())
        assert answer["value"] == {"outcome": "applied"}

    return send


@pytest.fixture
def status(tenant):
    def read() -> dict[str, Any]:
        [node] = tenant.query("nodes:list")["value"]
        shown: dict[str, Any] = node["status"]
        return shown

    return read


def test_trouble_degrades_a_node_and_the_next_word_mends_it(beat, status):
    assert status()["state"] == "offline"
    beat()
    assert status()["state"] == "online"
    beat(trouble=["slurm"], clock_skew_seconds=-90)
    assert status() | {"since": None} == {
        "state": "degraded",
        "since": None,
        "reasons": ["clock_skew", "slurm"],
    }
    beat()
    assert status()["state"] == "online"


def test_every_field_of_a_heartbeat_that_tells_of_trouble_is_understood(
    deployment, tenant, beat, status
):
    accepted, other = "a" * 16, "b" * 16
    args = {"node_id": tenant.node_id, "epoch": accepted}
    deployment.call("mutation", "nodes:acceptEpoch", args, deployment.admin)
    down = Partition(name="main", up=False, nodes=1, nodes_free=0, cpus=8, cpus_free=0)
    heartbeat = Heartbeat(
        sent_at=datetime.now(UTC),
        versions={},
        epoch=other,
        draining=True,
        oldest_undelivered_seconds=301,
        jobs_quarantined=1,
        clock_skew_seconds=60.5,
        partitions=[down],
        trouble=["daemon"],
    )

    beat(**heartbeat.model_dump(mode="json", exclude_none=True))

    assert status()["state"] == "draining"
    assert status()["reasons"] == [
        "drain_reported",
        "clock_skew",
        "daemon",
        "epoch_not_accepted",
        "events_undelivered",
        "jobs_quarantined",
        "partitions_down",
    ]


def test_a_silent_node_is_offline_after_a_minute_without_anybody_asking(beat, status):
    beat()
    heard = datetime.fromisoformat(status()["since"])

    wait_until(lambda: status()["state"] == "offline", 90, "the node to be offline")

    shown = status()
    assert shown["reasons"] == ["no_heartbeat"]
    assert datetime.fromisoformat(shown["since"]) - heard == OFFLINE_AFTER


def test_the_owner_drains_and_resumes(deployment, tenant, beat, status):
    def registered() -> str:
        args = {"node_id": tenant.node_id}
        answer = deployment.call("query", "registry:node", args, tenant.service())
        state: str = answer["value"]["state"]
        return state

    beat()
    assert tenant.manage("mutation", "nodes:drain", node_id=tenant.node_id)["value"]["changed"]
    assert (status()["state"], registered()) == ("draining", "draining")
    assert tenant.manage("mutation", "nodes:resume", node_id=tenant.node_id)["value"]["changed"]
    assert (status()["state"], registered()) == ("online", "active")


@pytest.mark.parametrize("who", ["a member", "a stranger"])
def test_nobody_else_drains_it(deployment, tenant, rival, status, who):
    authorization, code = {
        "a member": (tenant.member, "forbidden"),
        "a stranger": (rival.user, "not_found"),
    }[who]
    args = {"tenant_id": tenant.tenant_id, "node_id": tenant.node_id}

    answer = deployment.call("mutation", "nodes:drain", args, authorization)

    assert deployment.error_code(answer) == code
    assert status()["reasons"] == ["never_heard"]
