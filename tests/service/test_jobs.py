"""What a client meets: acceptance, replay, refusal by the node, cancel, live state, and other tenants' walls."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from tests.service.node import PROBLEMS, ScriptedNode

TRACEPARENT = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


def problem(response: httpx.Response) -> str:
    return response.json()["type"].removeprefix(PROBLEMS)


def test_an_accepted_job_has_a_location(node, submit, command):
    response = submit(command)

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/nodes/n1/jobs/{command['job_id']}"
    assert "Idempotency-Replayed" not in response.headers
    assert response.json()["job_id"] == command["job_id"]
    assert response.json()["status"] == "accepted"


def test_the_node_gets_the_command_with_its_key_and_for_whom_it_is(node, submit, command):
    key = str(uuid4())
    submit(command, key=key)

    [received] = node.received
    assert received["operation"] == "submit"
    assert (received["tenant_id"], received["job_id"]) == ("acme", command["job_id"])
    assert received["idempotency_key"] == key
    sent, arrived = (validated(SubmitJobCommand, body) for body in (command, received["body"]))
    assert arrived == sent


def test_the_same_key_gets_the_same_answer_and_says_so(node, submit, command):
    key = str(uuid4())

    first, second = submit(command, key=key), submit(command, key=key)

    assert second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["Idempotency-Replayed"] == "true"


def test_the_trace_of_the_header_counts_unless_the_body_names_one(node, submit, command):
    submit(command, headers={"traceparent": TRACEPARENT})
    submit(
        {**command, "traceparent": TRACEPARENT.replace("c", "e")},
        headers={"traceparent": TRACEPARENT},
    )
    submit(command, headers={"traceparent": "nonsense"})

    traces = [received["body"].get("traceparent") for received in node.received]
    assert traces == [TRACEPARENT, TRACEPARENT.replace("c", "e"), None]


def test_a_deadline_in_the_past_is_the_nodes_business(node, submit, command):
    """A replay of what was accepted in time must be answered for ever."""
    assert submit({**command, "deadline": "2020-01-01T00:00:00Z"}).status_code == 202


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("idempotency-key-reused", 422),
        ("job-id-conflict", 409),
        ("job-cancelled", 409),
        ("command-expired", 410),
        ("policy-refused", 422),
        ("image-not-allowed", 422),
        ("node-failed", 503),
        ("input-not-found", 422),
        ("node-draining", 503),
        ("quota-exceeded", 429),
        ("signature-invalid", 403),
    ],
)
def test_the_nodes_refusal_is_the_clients_answer(name, status, node, submit, command):
    node.decide = lambda _: node.reject(name, status)

    response = submit(command)

    assert (response.status_code, problem(response)) == (status, name)
    assert response.json()["detail"] == "the node says no"


@pytest.mark.parametrize(("told", "header"), [(17, 17), (None, 5)])
def test_when_to_come_again_is_the_nodes_word(told, header, node, submit, command):
    """A quota knows when it has room; whoever does not say so gets a time all the same."""
    verdict = node.reject("quota-exceeded", 429)
    verdict["problem"] |= {"retry": True} | ({"retry_after": told} if told else {})
    node.decide = lambda _: verdict

    response = submit(command)

    assert (response.status_code, response.headers["Retry-After"]) == (429, str(header))
    assert response.json()["retry"] is True


@pytest.mark.parametrize("name", ["unauthenticated", "no-such-problem"])
def test_a_refusal_that_is_not_the_nodes_to_make_is_our_error(name, node, submit, command):
    node.decide = lambda _: node.reject(name, 401)

    assert problem(submit(command)) == "internal-error"


def test_a_command_no_poll_answers_is_redelivered_then_unknown(own_adapter, keys, command):
    adapter = own_adapter(verdict_timeout_seconds=2)
    node = ScriptedNode(adapter.url, keys)
    node.decide = lambda _: None
    sent = {
        "Authorization": f"Bearer {keys.client('acme')}",
        "Idempotency-Key": f'"{uuid4()}"',
    }

    response = httpx.post(f"{adapter.url}/v1/nodes/n1/jobs", json=command, headers=sent, timeout=60)
    node.stop()

    assert (response.status_code, problem(response)) == (504, "outcome-unknown")
    assert len(node.received) > 1
    assert len({received["command_id"] for received in node.received}) == 1


def test_a_verdict_that_does_not_answer_is_refused_to_the_node(node, submit, command):
    """The caller waits on; the node learns that its verdict was wrong."""
    answers = iter([{"outcome": "answered"}, {"outcome": "rejected"}])
    node.decide = lambda received: next(answers, None) or node.accept(received)

    response = submit(command)

    assert response.status_code == 202
    assert node.problems == ["validation-failed", "validation-failed"]


def test_a_verdict_may_come_with_the_next_poll_and_is_told_at_once(node, submit, command):
    """Not when that poll ends; what in it answers nothing is no fault of the others, nor of the poll."""
    node.along = True
    nobody = {"command_id": str(uuid4()), "verdict": node.reject("policy-refused", 422)}

    def decide(received):
        cancelled = {**received, "operation": "cancel"}
        unfit = {"command_id": received["command_id"], "verdict": node.accept(cancelled)}
        node.verdicts += [nobody, unfit]
        return node.accept(received)

    node.decide = decide
    node.wait_seconds = 5  # longer than the client is let wait for a verdict

    assert submit(command).status_code == 202
    assert all(batch["takes_verdicts"] is True for batch in node.batches)
    assert len(node.received) == 1
    assert node.problems == []


def test_a_node_that_is_not_connected_is_503_at_once(submit, command):
    """Node n2 never polled in this suite."""
    response = submit(
        {**command, "tenant_id": "globex", "management_node_id": "n2"},
        tenant="globex",
        node_id="n2",
    )

    assert (response.status_code, problem(response)) == (503, "node-unreachable")
    assert int(response.headers["Retry-After"]) >= 1
    assert response.elapsed.total_seconds() < 1


@pytest.fixture
def cancel(http, keys):
    def cancel(job: str, tenant: str = "acme", **changes) -> httpx.Response:
        body = {
            "schema_version": "1",
            "tenant_id": tenant,
            "workspace_id": "lab",
            "job_id": job,
            "management_node_id": "n1",
            "requested_by": {"user_id": "user-1"},
            **changes,
        }
        headers = {"Authorization": f"Bearer {keys.client(tenant)}"}
        return http.post(f"/v1/nodes/n1/jobs/{job}/cancel", json=body, headers=headers)

    return cancel


def test_a_cancel_needs_no_key(node, cancel):
    response = cancel("job-7")

    assert (response.status_code, response.json()["status"]) == (202, "cancelling")
    [received] = node.received
    assert (received["operation"], received["job_id"]) == ("cancel", "job-7")
    assert "idempotency_key" not in received


@pytest.mark.parametrize(
    ("changes", "name", "field"),
    [
        ({"job_id": "job-8"}, "validation-failed", "job_id"),
        ({"tenant_id": "globex"}, "tenant-mismatch", "tenant_id"),
        ({"management_node_id": "n2"}, "node-mismatch", "management_node_id"),
        ({"reason": "a\nb"}, "validation-failed", "reason"),
    ],
)
def test_a_cancel_that_contradicts_itself_is_refused(changes, name, field, node, cancel):
    response = cancel("job-7", **changes)

    assert problem(response) == name
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert node.received == []


def test_the_live_state_comes_from_the_node(node, http, keys):
    state = {
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": "job-7",
        "submission_id": str(uuid4()),
        "seq": 3,
        "attempt": 1,
        "state": "running",
        "occurred_at": "2026-02-15T10:00:00.000Z",
        "trace_id": "a" * 32,
    }
    node.decide = lambda _: {
        "outcome": "answered",
        "job": {"node_id": "n1", "job": state, "delivered_seq": 2},
    }

    response = http.get(
        "/v1/nodes/n1/jobs/job-7", headers={"Authorization": f"Bearer {keys.client('acme')}"}
    )

    assert response.status_code == 200
    assert response.json() == {"node_id": "n1", "job": state, "delivered_seq": 2}


def test_jobs_nodes_and_names_that_are_not_yours_are_one_404(node, http, keys):
    """An unknown job, a node of others, a node of nobody, a name that cannot be: the same body."""
    headers = {"Authorization": f"Bearer {keys.client('acme')}"}
    paths = ("n1/jobs/unknown", "n2/jobs/job-7", "n9/jobs/job-7", "n1/jobs/no%20name", "%00/jobs/x")
    answers = [http.get(f"/v1/nodes/{path}", headers=headers) for path in paths]

    assert {answer.status_code for answer in answers} == {404}
    own, *others = (answer.json() for answer in answers)
    assert own["type"] == PROBLEMS + "not-found"
    assert all(other == others[0] for other in others)


def test_two_tenants_do_not_meet(node, submit, command):
    """The same key and job_id of another tenant is another command."""
    key = str(uuid4())

    mine = submit(command, key=key)
    theirs = submit({**command, "tenant_id": "globex"}, tenant="globex", key=key)

    assert mine.status_code == theirs.status_code == 202
    assert "Idempotency-Replayed" not in theirs.headers
    assert mine.json()["submission_id"] != theirs.json()["submission_id"]
    assert [received["tenant_id"] for received in node.received] == ["acme", "globex"]
