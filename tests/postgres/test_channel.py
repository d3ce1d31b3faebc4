"""Commands in, verdicts out: nothing in the envelope is trusted, and no verdict is given without the database."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest

from aiida_byoc.agent.channel import decide, decide_all
from aiida_byoc.contracts.delivery import Command, Verdict
from aiida_byoc.contracts.signature import signing_input
from aiida_byoc.node import NodeSettings
from tests.array_faults import FAULTS
from tests.builders import KEY, cancel_body, submit_body
from tests.node_registry import product_key, public_members
from tests.postgres.reading import nothing_written, row, states

COMMAND_ID = "33333333-3333-4333-8333-333333333333"


def envelope(operation: str = "submit", **changes: Any) -> Command:
    """A command as the adapter hands it over; keywords change the envelope."""
    bodies = {"submit": submit_body(), "cancel": cancel_body(), "inspect": None}
    values = {
        "command_id": COMMAND_ID,
        "operation": operation,
        "tenant_id": "acme",
        "job_id": "job-1",
        "idempotency_key": KEY if operation == "submit" else None,
        "body": bodies[operation],
    }
    return Command.model_validate({**values, **changes})


def problem_of(verdict: Verdict) -> str:
    assert verdict.outcome == "rejected"
    assert verdict.problem is not None
    return verdict.problem.type.rpartition("/")[2]


def test_submit_replay_inspect_and_cancel(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    first = decide(connection, settings, envelope())
    again = decide(connection, settings, envelope())
    seen = decide(connection, settings, envelope("inspect"))
    stopped = decide(connection, settings, envelope("cancel"))
    stopped_again = decide(connection, settings, envelope("cancel"))

    assert (first.outcome, again.outcome) == ("accepted", "replayed")
    assert first.acceptance == again.acceptance
    assert first.acceptance is not None
    assert seen.outcome == "answered"
    assert seen.job is not None
    assert seen.job.job.submission_id == first.acceptance.submission_id
    assert (stopped.outcome, stopped_again.outcome) == ("accepted", "replayed")
    assert stopped.cancellation is not None
    assert stopped.cancellation.status == "cancelled"
    assert states(connection, first.acceptance.submission_id) == ["accepted", "cancelled"]


def test_the_verdict_comes_after_the_commit(
    connection: psycopg.Connection, settings: NodeSettings, open_connection: Any
) -> None:
    decide(connection, settings, envelope())

    assert row(open_connection()) is not None


def numbered(number: int, **changes: Any) -> Command:
    """A submission of its own job under its own key."""
    name = f"job-{number}"
    own = {
        "job_id": name,
        "idempotency_key": f"key-0123456789abc-{number}",
        "body": submit_body(job_id=name),
    }
    return envelope(**{**own, **changes})


def told(
    connection: psycopg.Connection, settings: NodeSettings, commands: list[Command]
) -> list[str]:
    """What became of each: the outcome, or the problem."""
    decided = list(decide_all(connection, settings, commands))
    assert [command for command, _ in decided] == commands
    return [
        problem_of(verdict) if verdict.outcome == "rejected" else verdict.outcome
        for _, verdict in decided
    ]


def test_submissions_that_follow_each_other_are_one_transaction(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    assert told(connection, settings, [numbered(n) for n in range(3)]) == ["accepted"] * 3

    written = connection.execute(
        "SELECT job_id, xmin, accepted_at FROM byoc.job ORDER BY accepted_at"
    )
    jobs = written.fetchall()
    assert [name for name, _, _ in jobs] == ["job-0", "job-1", "job-2"]
    assert len({xmin for _, xmin, _ in jobs}) == 1
    assert len({moment for _, _, moment in jobs}) == 3  # the launcher takes the oldest first
    for name, _, _ in jobs:
        kept = row(connection, job=name)
        assert kept is not None
        assert states(connection, str(kept["submission_id"])) == ["accepted"]


def test_what_is_refused_in_a_batch_leaves_the_rest_alone(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, numbered(1))
    first = numbered(2)
    commands = [
        numbered(0),
        numbered(1),  # known before
        first,
        first,  # the same again
        numbered(2, idempotency_key="key-fedcba9876543210"),  # its job
        numbered(3, idempotency_key=first.idempotency_key),  # its key
        numbered(4, body=submit_body(job_id="job-4", deadline="2020-01-01T00:00:00Z")),
        numbered(5, body={}),
        numbered(6, idempotency_key=None),
        numbered(7, body=submit_body(job_id="job-7", execution_profile={"queue_name": "root"})),
        numbered(8),
    ]

    assert told(connection, settings, commands) == [
        "accepted",
        "replayed",
        "accepted",
        "replayed",
        "job-id-conflict",
        "idempotency-key-reused",
        "command-expired",
        "validation-failed",
        "idempotency-key-invalid",
        "policy-refused",
        "accepted",
    ]
    names = connection.execute("SELECT job_id FROM byoc.job ORDER BY job_id").fetchall()
    assert [name for (name,) in names] == ["job-0", "job-1", "job-2", "job-8"]


def test_what_nobody_foresaw_fails_the_one_command_that_it_is_about(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    connection.execute("ALTER TABLE byoc.job ADD CONSTRAINT unforeseen CHECK (job_id <> 'job-1')")

    outcomes = told(connection, settings, [numbered(n) for n in range(3)])

    assert outcomes == ["accepted", "node-failed", "accepted"]
    assert row(connection, job="job-1") is None


def test_a_batch_keeps_the_order_of_its_commands(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    """A cancel that comes first wins; one that comes later finds the job."""
    early, late = (
        envelope("cancel", job_id=name, body=cancel_body(job_id=name))
        for name in ("job-0", "job-1")
    )

    assert told(connection, settings, [early, numbered(0), numbered(1), late]) == [
        "accepted",
        "job-cancelled",
        "accepted",
        "accepted",
    ]


def test_a_quota_counts_what_the_same_batch_took(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    policy = settings.policy_file
    policy.write_text(policy.read_text() + "\n[quotas]\nqueued = 2\n")

    outcomes = told(connection, settings, [numbered(n) for n in range(4)])

    assert outcomes == ["accepted", "accepted", "quota-exceeded", "quota-exceeded"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_array_is_refused_also_here(
    connection: psycopg.Connection, settings: NodeSettings, fault: str
) -> None:
    """The node trusts no adapter: the same field, row and column."""
    workload, field, says = FAULTS[fault]

    verdict = decide(connection, settings, envelope(body=submit_body(workload=workload)))

    assert problem_of(verdict) == "validation-failed"
    assert verdict.problem is not None
    (error,) = verdict.problem.errors
    assert error.field == field
    assert says in error.message
    assert nothing_written(connection)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tenant_id": "globex"}, "tenant-mismatch"),
        ({"body": submit_body(management_node_id="n2")}, "node-mismatch"),
        ({"job_id": "job-2"}, "validation-failed"),
        ({"idempotency_key": None}, "idempotency-key-invalid"),
        ({"body": None}, "validation-failed"),
        ({"body": {}}, "validation-failed"),
        ({"body": {**submit_body(), "surprise": 1}}, "validation-failed"),
        ({"body": submit_body(tenant_id="initech"), "tenant_id": "initech"}, "not-found"),
        ({"body": submit_body(deadline="2020-01-01T00:00:00Z")}, "command-expired"),
        ({"body": submit_body(execution_profile={"queue_name": "root"})}, "policy-refused"),
    ],
    ids=["tenant", "node", "job", "key", "no body", "empty", "field", "stranger", "late", "queue"],
)
def test_a_bad_submit_is_rejected_and_nothing_is_written(
    connection: psycopg.Connection, settings: NodeSettings, changes: dict[str, Any], problem: str
) -> None:
    assert problem_of(decide(connection, settings, envelope(**changes))) == problem
    assert nothing_written(connection)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tenant_id": "globex"}, "tenant-mismatch"),
        ({"body": cancel_body(management_node_id="n2")}, "node-mismatch"),
        ({"job_id": "job-2"}, "validation-failed"),
        ({"body": {"job_id": "job-1"}}, "validation-failed"),
    ],
    ids=["tenant", "node", "job", "junk"],
)
def test_a_bad_cancel_is_rejected_and_nothing_is_written(
    connection: psycopg.Connection, settings: NodeSettings, changes: dict[str, Any], problem: str
) -> None:
    assert problem_of(decide(connection, settings, envelope("cancel", **changes))) == problem
    assert nothing_written(connection)


def test_i7_an_inspection_sees_its_own_tenants_jobs_only(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, envelope())

    verdict = decide(connection, settings, envelope("inspect", tenant_id="globex"))

    assert problem_of(verdict) == "not-found"


@pytest.mark.parametrize("content", [None, "tenants = ["], ids=["missing", "broken"])
def test_a_node_without_a_policy_cannot_decide_but_still_remembers(
    connection: psycopg.Connection,
    settings: NodeSettings,
    content: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = decide(connection, settings, envelope())
    if content is None:
        settings.policy_file.unlink()
    else:
        settings.policy_file.write_text(content)

    other = envelope(
        job_id="job-2", idempotency_key="key-fedcba9876543210", body=submit_body(job_id="job-2")
    )
    verdict = decide(connection, settings, other)

    assert problem_of(verdict) == "node-failed"
    assert verdict.problem is not None
    assert verdict.problem.retry
    assert str(settings.policy_file) not in verdict.problem.model_dump_json()
    assert str(settings.policy_file) in caplog.text
    assert row(connection, job="job-2") is None
    assert decide(connection, settings, envelope()).acceptance == first.acceptance


def test_an_owners_change_of_the_policy_counts_at_once(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace("cpu = 4", "cpu = 1"))
    shape = {"cpu": 2, "memory_mib": 256, "walltime_seconds": 60}

    verdict = decide(connection, settings, envelope(body=submit_body(resource_shape=shape)))

    assert problem_of(verdict) == "policy-refused"
    assert verdict.problem is not None
    assert [error.field for error in verdict.problem.errors] == ["resource_shape.cpu"]


@pytest.mark.parametrize("operation", ["submit", "cancel", "inspect"])
def test_i23_for_a_tenant_that_the_policy_does_not_name_there_is_nothing(
    connection: psycopg.Connection, settings: NodeSettings, operation: str
) -> None:
    """Whatever the adapter let through: no claim, no tombstone, no view."""
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace('"acme", ', ""))

    assert problem_of(decide(connection, settings, envelope(operation))) == "not-found"
    assert row(connection) is None


def test_i23_a_tenant_that_the_policy_names_no_more_sees_nothing_but_may_stop_its_jobs(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, envelope())
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace('"acme", ', ""))

    assert problem_of(decide(connection, settings, envelope("inspect"))) == "not-found"
    stopped = decide(connection, settings, envelope("cancel"))
    assert stopped.cancellation is not None
    assert stopped.cancellation.status == "cancelled"


@pytest.mark.parametrize("operation", ["submit", "cancel", "inspect"])
def test_without_the_database_there_is_no_verdict(
    connection: psycopg.Connection, settings: NodeSettings, open_connection: Any, operation: str
) -> None:
    """The adapter's waiter times out and the client repeats its key: a rejection would be a lie."""
    open_connection().execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    for _ in range(2):  # as it breaks, and once it is known to be broken
        with pytest.raises(psycopg.OperationalError):
            decide(connection, settings, envelope(operation))


def test_what_nobody_expected_is_logged_and_told_as_a_failure(
    connection: psycopg.Connection, settings: NodeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    connection.execute("DROP TABLE byoc.stream")

    verdict = decide(connection, settings, envelope())

    assert problem_of(verdict) == "node-failed"
    assert verdict.problem is not None
    assert "stream" not in verdict.problem.model_dump_json()
    assert "byoc.stream" in caplog.text
    assert row(connection) is None


def test_a_decision_is_logged_without_the_commands_content(
    connection: psycopg.Connection, settings: NodeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {**submit_body()["workload"], "env": {"TOKEN": "s3cret"}, "argv": ["s3cret"]}

    decide(connection, settings, envelope(body=submit_body(workload=secret)))

    assert f"command={COMMAND_ID}" in caplog.text
    assert "outcome=accepted tenant=acme job=job-1" in caplog.text
    assert "s3cret" not in caplog.text
    assert KEY not in caplog.text


@pytest.fixture
def product(settings: NodeSettings, tmp_path: Path) -> tuple[NodeSettings, Any]:
    """The settings of a node with the product's keys, and the key that signs."""
    key = product_key()
    file = tmp_path / "product.json"
    file.write_text(json.dumps({"keys": [public_members(key)]}))
    return settings.model_copy(update={"product_keys_file": file}), key


def signature(key: Any, command: Command) -> str:
    """What the product signs."""
    header = json.dumps({"alg": "ES256", "kid": public_members(key)["kid"]}).encode()
    protected = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    signed = signing_input(
        protected, command.operation, command.idempotency_key, command.body or {}
    )
    made = jwt.get_algorithm_by_name("ES256").sign(signed, key)
    return f"{protected}..{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def signed(key: Any, operation: str = "submit", **changes: Any) -> Command:
    command = envelope(operation, **changes)
    return command.model_copy(update={"signature": signature(key, command)})


def test_signed_commands_are_carried_out_and_replayed(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any]
) -> None:
    settings, key = product

    first = decide(connection, settings, signed(key))
    again = decide(connection, settings, signed(key))
    seen = decide(connection, settings, envelope("inspect"))
    stopped = decide(connection, settings, signed(key, "cancel"))

    outcomes = [verdict.outcome for verdict in (first, again, seen, stopped)]
    assert outcomes == ["accepted", "replayed", "answered", "accepted"]


@pytest.mark.parametrize("operation", ["submit", "cancel"])
@pytest.mark.parametrize("why", ["missing", "body", "operation", "key", "tenant", "node", "forged"])
def test_a_command_that_the_product_did_not_sign_is_refused_and_nothing_is_stored(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    caplog: pytest.LogCaptureFixture,
    operation: str,
    why: str,
) -> None:
    settings, key = product
    good = signed(key, operation)
    changes: dict[str, dict[str, Any]] = {
        "missing": {"signature": None},
        "body": {"body": {**(good.body or {}), "requested_by": {"user_id": "mallory"}}},
        "operation": {
            "signature": signed(key, "cancel" if operation == "submit" else "submit").signature
        },
        "key": {"idempotency_key": "key-fedcba9876543210"},
        "tenant": {"body": {**(good.body or {}), "tenant_id": "globex"}, "tenant_id": "globex"},
        "node": {"body": {**(good.body or {}), "management_node_id": "n2"}},
        "forged": {"signature": signature(product_key(), good)},
    }
    caplog.set_level(logging.INFO)

    verdict = decide(connection, settings, good.model_copy(update=changes[why]))

    assert problem_of(verdict) == "signature-invalid"
    assert nothing_written(connection)
    assert "outcome=rejected" in caplog.text
    assert str(good.signature) not in caplog.text


def test_a_replay_is_held_to_its_signature_too(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any]
) -> None:
    settings, key = product
    decide(connection, settings, signed(key))

    assert problem_of(decide(connection, settings, envelope())) == "signature-invalid"


@pytest.mark.parametrize(
    ("said", "has_keys", "outcome"),
    [
        (None, True, "rejected"),
        (None, False, "accepted"),
        (False, True, "accepted"),
        (True, False, "rejected"),
        (True, True, "rejected"),
    ],
)
def test_the_policy_says_whether_a_signature_is_required(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    said: bool | None,
    has_keys: bool,
    outcome: str,
) -> None:
    settings, _ = product
    if not has_keys:
        settings = settings.model_copy(update={"product_keys_file": None})
    if said is not None:
        table = f"\n[signatures]\nrequired = {str(said).lower()}\n"
        settings.policy_file.write_text(settings.policy_file.read_text() + table)

    verdict = decide(connection, settings, envelope())

    assert verdict.outcome == outcome


def test_a_signature_that_is_there_must_hold_whatever_the_policy_says(
    connection: psycopg.Connection, product: tuple[NodeSettings, Any], settings: NodeSettings
) -> None:
    table = "\n[signatures]\nrequired = false\n"
    settings.policy_file.write_text(settings.policy_file.read_text() + table)
    forged = signed(product_key())

    assert problem_of(decide(connection, product[0], forged)) == "signature-invalid"
    assert problem_of(decide(connection, settings, forged)) == "signature-invalid"
    assert problem_of(
        decide(connection, product[0], signed(product_key(), "inspect", body={}))
    ) == ("signature-invalid")


def test_without_its_product_keys_a_node_decides_nothing(
    connection: psycopg.Connection,
    product: tuple[NodeSettings, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, key = product
    assert settings.product_keys_file is not None
    settings.product_keys_file.unlink()

    verdict = decide(connection, settings, signed(key))

    assert problem_of(verdict) == "node-failed"
    assert "node enroll" in caplog.text
    assert nothing_written(connection)
