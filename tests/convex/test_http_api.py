"""The product's functions as the adapter and users meet them: over HTTP, as the contracts say.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from aiida_byoc.contracts.events import (
    JobError,
    JobResult,
    OutputRecord,
    Progress,
    SchedulerRecord,
    Timings,
)
from aiida_byoc.contracts.lifecycle import PRODUCT_STATE, TERMINAL, ExecutionState
from aiida_byoc.contracts.projection import ProjectionUpdate

APPLY = "projections:applyProjections"
JOB = {"job_id": "j1"}


def test_version_says_that_it_is_up(deployment):
    assert deployment.client.get("/version").status_code == 200


class TestRequests:
    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "7", '{"args": {}}', '{"path": "jobs:get"}']
    )
    def test_a_body_that_is_no_call(self, deployment, content):
        response = deployment.client.post(
            "/api/query", content=content, headers={"Content-Type": "application/json"}
        )
        assert 400 <= response.status_code < 500

    def test_arguments_as_a_list_of_one(self, deployment, tenant):
        tenant.apply(tenant.update())
        body = {"path": "jobs:get", "args": [{"tenant_id": tenant.tenant_id, **JOB}]}
        response = deployment.post("/api/query", body, tenant.user)
        assert response.json()["value"]["job_id"] == "j1"

    def test_arguments_that_the_validator_refuses_have_no_error_data(self, deployment, tenant):
        args = {"updates": [tenant.update(surprise=1)]}
        assert (
            deployment.error_code(deployment.call("mutation", APPLY, args, tenant.service()))
            is None
        )

    def test_a_refusal_has_error_data(self, deployment, tenant):
        answer = deployment.call("mutation", APPLY, {"updates": []}, tenant.service())
        assert deployment.error_code(answer) == "invalid"
        assert answer["errorData"]["message"]


class TestProjections:
    def test_a_user_may_not_write(self, deployment, tenant):
        answer = deployment.call("mutation", APPLY, {"updates": [tenant.update()]}, tenant.user)
        assert deployment.error_code(answer) == "forbidden"
        assert deployment.error_code(tenant.query("jobs:get", **JOB)) == "not_found"

    @pytest.mark.parametrize(
        "claims", [{"scope": "heartbeats:write"}, {"scope": None}, {"node_id": None}], ids=str
    )
    def test_a_service_token_must_say_what_for(self, deployment, tenant, claims):
        args = {"updates": [tenant.update()]}
        answer = deployment.call("mutation", APPLY, args, tenant.service(**claims))
        assert deployment.error_code(answer) == "forbidden"

    def test_an_answer_that_got_lost_is_a_duplicate_later(self, tenant):
        assert tenant.apply(tenant.update()) == ["applied"]
        assert tenant.apply(tenant.update()) == ["duplicate"]

    def test_poison_harms_nobody_else(self, deployment, tenant, rival):
        foreign = rival.update()
        conflicting = tenant.update(message="other")
        outcomes = tenant.apply(tenant.update(), foreign, conflicting, tenant.update(2))
        assert outcomes == ["applied", "forbidden", "seq_conflict", "applied"]
        assert deployment.error_code(rival.query("jobs:get", **JOB)) == "not_found"

    def test_fifty_at_once_end_in_the_newest(self, tenant):
        with ThreadPoolExecutor(10) as pool:
            outcomes = list(pool.map(lambda seq: tenant.apply(tenant.update(seq))[0], range(1, 51)))
        assert set(outcomes) <= {"applied", "superseded"}
        job = tenant.query("jobs:get", **JOB)["value"]
        assert job["seq"] == 50
        assert "missing" not in job
        told = tenant.pages("jobs:timeline", 20, **JOB)
        assert [event["seq"] for event in told] == list(range(1, 51))

    def test_eight_writers_of_the_same_events_apply_each_once(self, tenant):
        events = [tenant.update(seq) for seq in range(1, 21)]

        def write(_writer: int) -> list[str]:
            return [tenant.apply(event)[0] for event in events]

        with ThreadPoolExecutor(8) as pool:
            outcomes = Counter(outcome for told in pool.map(write, range(8)) for outcome in told)
        assert outcomes == {"applied": 20, "duplicate": 140}

    @pytest.mark.parametrize("state", ExecutionState)
    def test_what_the_contract_writes_is_taken(self, tenant, state):
        now = datetime.now(UTC)
        update = ProjectionUpdate(
            **{
                **tenant.update(),
                "execution_state": state,
                "state": PRODUCT_STATE[state],
                "message": "as told",
                "scheduler": SchedulerRecord(job_id="17", nodes=["c1"]),
                "timings": Timings(accepted=now, started=now),
                "progress": Progress(step=1, metrics={"energy/eV": -1.5}, reported_at=now),
                "result": JobResult(
                    exit_code=0, outputs=[OutputRecord(name="out", size=1, sha256="0" * 64)]
                ),
                "error": JobError(code="oom", message="out of memory", retryable=False),
            }
        ).wire()
        assert tenant.apply(update) == ["applied"]
        job = tenant.query("jobs:get", **JOB)["value"]
        assert {name: job[name] for name in update} == update
        later = tenant.update(2, execution_state="held", state="attention")
        assert tenant.apply(later) == ["terminal" if state in TERMINAL else "applied"]


class TestReading:
    @pytest.mark.parametrize(
        ("path", "args"),
        [
            ("jobs:get", JOB),
            ("jobs:list", {"paginationOpts": {"numItems": 5, "cursor": None}}),
            ("jobs:timeline", {**JOB, "paginationOpts": {"numItems": 5, "cursor": None}}),
            ("nodes:list", {}),
        ],
    )
    def test_strangers_find_nothing(self, deployment, tenant, rival, path, args):
        tenant.apply(tenant.update())
        args = {"tenant_id": tenant.tenant_id, **args}
        assert deployment.call("query", path, args, tenant.user)["status"] == "success"
        theirs = deployment.call("query", path, args, rival.user)
        nowhere = deployment.call("query", path, {**args, "tenant_id": "no-such"}, rival.user)
        assert deployment.error_code(theirs) == "not_found"
        assert theirs["errorData"] == nowhere["errorData"]
        assert deployment.error_code(deployment.call("query", path, args)) == "unauthenticated"

    def test_pages_hold_every_job_once(self, tenant):
        for index in range(12):
            tenant.apply(tenant.update(job_id=f"j{index}"))
        jobs = tenant.pages("jobs:list", 5, state="queued")
        assert [job["job_id"] for job in jobs] == [f"j{index}" for index in reversed(range(12))]

    def test_a_heartbeat_shows_with_its_node(self, deployment, tenant):
        beat = {
            "node_id": tenant.node_id,
            "report": {"versions": {"aiida": "2.9"}, "queues": [], "note": None},
            "received_at": "2026-03-01T12:00:00.000Z",
        }
        answer = deployment.call("mutation", "nodes:recordHeartbeat", beat, tenant.service())
        assert answer["value"] == {"outcome": "applied"}
        [node] = tenant.query("nodes:list")["value"]
        assert node.pop("status").pop("since")
        assert node == {
            "node_id": tenant.node_id,
            "owned": True,
            "heartbeat": {"received_at": beat["received_at"], "report": beat["report"]},
        }
