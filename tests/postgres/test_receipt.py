"""The facts of a receipt: from the ledger and AiiDA's own tables, for the job's tenant alone, once it has ended."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent.channel import decide
from aiida_byoc.agent.keys import made_key, public_key
from aiida_byoc.commands import ledger
from aiida_byoc.contracts.delivery import Command, Verdict
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.receipt.verification import verified
from aiida_byoc.node import NodeSettings
from aiida_byoc.receipts import issue as issuing
from aiida_byoc.receipts.issue import issue
from tests.builders import DIGEST, NODE, NOW, cancel, submit_body
from tests.postgres.jobs import accept, report, served, walk
from tests.postgres.provenance import Provenance, files, sha256
from tests.postgres.reading import row

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SHOWN = (
    "JobId=4711 JobName=byoc-x-1 UserId=u(1) JobState=OUT_OF_MEMORY Reason=OutOfMemory Restarts=0 ExitCode=0:125"
    " Partition=batch NodeList=c[1-2] BatchHost=c1"
)
ACCOUNTED = "COMPLETED|0:0|c3"
INPUTS = [
    {"name": "numbers.txt", "text": "3 1 2"},
    {"name": "table.csv", "job": {"job_id": "job-0", "output": "out/table.csv"}},
    {"name": "large.bin", "job": {"job_id": "job-0", "output": "large.bin"}},
    {"name": "set.csv", "url": "https://data.example/1.csv", "sha256": "c" * 64},
    {"name": "potentials", "path": "/shared/potentials"},
]
RECORD = {
    "scheduler_job_id": "4712",
    "scheduler_job_name": "byoc-x-2",
    "scheduler_cluster": "hpc",
    "scheduler_nodes": "c3",
    "image_digest": DIGEST,
    "exit_code": 0,
    "started_at": 1_771_149_605.25,
    "ended_at": 1_771_149_612.5,
    "usage": {"cpu_seconds": 1.5, "peak_rss_mib": 12.0, "walltime_seconds": 7.25},
    "outputs": [
        {"name": "results/sorted.txt", "size": 5, "sha256": "0" * 64},
        {"name": "large.out", "size": 10**12, "sha256": "d" * 64, "location": "remote"},
        {"name": "not-kept", "size": 1, "sha256": "e" * 64},
    ],
}


@pytest.fixture
def provenance(connection: psycopg.Connection) -> Provenance:
    return Provenance(connection)


@pytest.fixture
def job(connection: psycopg.Connection, provenance: Provenance) -> str:
    """A job that ran out of memory once, and then succeeded; its submission."""
    submission = accept(connection)
    walk(connection, submission, "launched", "queued", "running")
    report(connection, submission, "queued", attempt=2)
    report(connection, submission, "running", attempt=2)
    command = submit_body(workload={**submit_body()["workload"], "inputs": INPUTS})
    chain = provenance.chain(submission, command, exit_status=0)
    provenance.attempt(
        chain,
        1,
        {
            "job_id": "4711/byoc-x-1",
            "queue_name": "batch",
            "exit_status": 110,
            "exit_message": "out of\nmemory",
            "detailed_job_info": {"stdout": SHOWN},
        },
    )
    second = provenance.attempt(
        chain,
        2,
        {
            "job_id": "4712/byoc-x-2",
            "queue_name": "batch",
            "exit_status": 0,
            "detailed_job_info": {"stdout": ACCOUNTED},
        },
    )
    provenance.given(second, "nodes__input_000", numbers="3 1 2")
    provenance.given(second, "given__input_001", **{"out__table.csv": "table"})
    earlier = provenance.node("process.calculation.calcjob.CalcJobNode.")
    provenance.left(earlier, "record", {"outputs": [{"name": "large.bin", "sha256": "b" * 64}]})
    stayed = provenance.given(second, "given__input_002", "data.core.remote.RemoteData.")
    provenance.link(earlier, stayed, "create", "remote_outputs")
    provenance.left(second, "record", RECORD)
    provenance.left(second, "outputs", **{"results__sorted.txt": "1 2 3"})
    provenance.left(second, "remote_outputs")
    provenance.left(
        second, "retrieved", **{"byoc_record.json": "record", "stdout": "out", "stderr": ""}
    )
    report(
        connection,
        submission,
        "succeeded",
        attempt=2,
        facts={
            "timings": {"started": "2026-02-15T10:00:05.250Z", "ended": "2026-02-15T10:00:12.500Z"}
        },
    )
    return submission


def told(
    connection: psycopg.Connection, job: str = "job-1", tenant: str = "acme"
) -> dict[str, Any]:
    """What the receipt says, as who has the node's key reads it."""
    statement = verified(issue(connection, KEY, tenant, job), [public_key(KEY)])
    return statement.model_dump(mode="json", exclude_none=True)


def refused(connection: psycopg.Connection, job: str = "job-1", tenant: str = "acme") -> str:
    with pytest.raises(ProblemError) as caught:
        issue(connection, KEY, tenant, job)
    return caught.value.kind.name


def test_the_job_is_tied_to_its_work_chain_and_its_command(
    connection: psycopg.Connection, job: str
) -> None:
    run = told(connection)["predicate"]

    ledgers = row(connection)
    assert ledgers is not None
    assert {name: run[name] for name in ("node_id", "tenant_id", "workspace_id", "job_id")} == {
        "node_id": NODE,
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": "job-1",
    }
    assert (run["submission_id"], run["execution_id"]) == (job, str(ledgers["process_uuid"]))
    assert (run["fingerprint"], run["trace_id"]) == (ledgers["fingerprint"], ledgers["trace_id"])
    assert (run["state"], run["exit_status"], run["runtime"]) == ("succeeded", 0, "bubblewrap")
    assert run["versions"] == {"aiida-core": "2.9.4", "aiida-byoc": "0.2.0"}
    assert run["accepted_at"] == "2026-02-15T10:00:00.000Z"


def test_each_attempt_has_its_script_and_slurms_word(
    connection: psycopg.Connection, job: str
) -> None:
    """By `scontrol` where the controller still knew it, by `sacct` where only accounting did."""
    first, second = told(connection)["predicate"]["calculations"]

    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert (first["script"], second["script"]) == (sha256("script 1"), sha256("script 2"))
    assert second["specification"] == sha256("specification 2")
    assert first["program"] == second["program"]
    assert first["exit_message"] == "out of memory"
    assert first["scheduler"] == {
        "cluster": "cluster",
        "job_id": "4711",
        "name": "byoc-x-1",
        "partition": "batch",
        "node_list": "c[1-2]",
        "said_by": "scontrol",
        "state": "OUT_OF_MEMORY",
        "exit_code": 0,
        "signal": 125,
        "reason": "OutOfMemory",
        "restarts": 0,
    }
    assert second["scheduler"] == {
        "cluster": "hpc",
        "job_id": "4712",
        "name": "byoc-x-2",
        "partition": "batch",
        "node_list": "c3",
        "said_by": "sacct",
        "state": "COMPLETED",
        "exit_code": 0,
        "signal": 0,
    }
    assert (second["started"], second["ended"]) == (
        "2026-02-15T10:00:05.250Z",
        "2026-02-15T10:00:12.500Z",
    )
    assert (second["usage"]["cpu_seconds"], second["node_seconds"]) == (1.5, 7.25)
    assert (second["record"], second["stdout"]) == (sha256("record"), sha256("out"))
    assert (second["image_digest"], second["container_exit_code"]) == (DIGEST, 0)


def test_outputs_are_told_by_the_hash_under_which_aiida_keeps_them(
    connection: psycopg.Connection, job: str
) -> None:
    """The record's word counts only for what stayed on the cluster; what was not kept is not there."""
    statement = told(connection)

    assert statement["subject"] == [
        {"name": "results/sorted.txt", "digest": {"sha256": sha256("1 2 3")}},
        {"name": "large.out", "digest": {"sha256": "d" * 64}},
    ]
    outputs = statement["predicate"]["calculations"][1]["outputs"]
    assert [(each["name"], each["location"]) for each in outputs] == [
        ("results/sorted.txt", "repository"),
        ("large.out", "remote"),
    ]


def test_inputs_are_told_by_their_content(connection: psycopg.Connection, job: str) -> None:
    inputs = told(connection)["predicate"]["inputs"]

    assert inputs == [
        {"name": "numbers.txt", "origin": "text", "sha256": sha256("3 1 2")},
        {"name": "table.csv", "origin": "job", "source": "job-0/out/table.csv", "sha256": sha256("table")},
        {"name": "large.bin", "origin": "job", "source": "job-0/large.bin", "sha256": "b" * 64},
        {"name": "set.csv", "origin": "url", "source": "https://data.example/1.csv", "sha256": "c" * 64},
        {"name": "potentials", "origin": "path", "source": "/shared/potentials"},
    ]  # fmt: skip


def test_the_same_facts_are_the_same_bytes(connection: psycopg.Connection, job: str) -> None:
    assert issue(connection, KEY, "acme", "job-1") == issue(connection, KEY, "acme", "job-1")


def test_what_the_ledger_forgot_is_still_in_provenance(
    connection: psycopg.Connection, job: str
) -> None:
    before = issue(connection, KEY, "acme", "job-1")
    connection.execute("UPDATE byoc.job SET command = NULL, placement = NULL, snapshot = '{}'")
    connection.execute("DELETE FROM byoc.event USING byoc.job WHERE event.seq < job.seq")

    assert issue(connection, KEY, "acme", "job-1") == before


@pytest.mark.usefixtures("job")
def test_another_tenants_job_and_nobodys_are_not_there(connection: psycopg.Connection) -> None:
    ledger.cancel(connection, cancel(job_id="buried"), serve=served, now=NOW)

    assert refused(connection, tenant="globex") == "not-found"
    assert refused(connection, "job-2") == "not-found"
    assert refused(connection, "buried") == "not-found"


@pytest.mark.parametrize(
    "states", [(), ("launched",), ("launched", "queued", "running"), ("launched", "held")]
)
def test_a_job_that_goes_on_has_no_receipt(
    states: tuple[str, ...], connection: psycopg.Connection
) -> None:
    walk(connection, accept(connection), *states)

    assert refused(connection) == "job-not-ended"


def test_a_job_that_was_never_launched_has_itself_for_a_subject(
    connection: psycopg.Connection,
) -> None:
    submission = accept(connection, workload={**submit_body()["workload"], "inputs": INPUTS[:1]})
    ledger.cancel(connection, cancel(), serve=served, now=NOW)

    statement = told(connection)

    run = statement["predicate"]
    assert statement["subject"] == [
        {"name": f"urn:uuid:{submission}", "digest": {"sha256": run["fingerprint"]}}
    ]
    assert (run["state"], run["calculations"]) == ("cancelled", [])
    assert "execution_id" not in run
    assert [each["sha256"] for each in run["inputs"]] == [sha256("3 1 2")]


def test_of_an_approved_work_chain_all_calculations_are_told_and_what_it_returned(
    connection: psycopg.Connection, provenance: Provenance
) -> None:
    """However deep; what its calculations are called in their plugin's words means nothing here."""
    submission = accept(connection)
    walk(connection, submission, "launched", "queued", "running")
    workload = {"kind": "workchain", "entry_point": "quantum.relax", "inputs": {"a": 1}}
    chain = provenance.chain(
        submission,
        submit_body(workload=workload),
        process_type="aiida.workflows:byoc.workchain",
        exit_status=0,
    )
    between = provenance.node(
        "process.workflow.workchain.", process="aiida.workflows:quantum.relax"
    )
    provenance.link(chain, between, "call_work", "CALL")
    calculation = provenance.node(
        "process.calculation.calcjob.CalcJobNode.",
        {"job_id": "17/aiida-9", "version": {"core": "2.9.4", "plugin": "4.5"}},
        process="aiida.calculations:quantum.pw",
        repository=files(**{"_aiidasubmit.sh": "script"}),
    )
    provenance.link(between, calculation, "call_calc", "iteration_01")
    provenance.left(calculation, "record", {"outputs": "theirs"})
    returned = [{"name": "structure", "size": 3, "sha256": "a" * 64}]
    result = {"result": {"exit_code": 0, "outputs": returned}}
    report(connection, submission, "succeeded", facts=result)

    statement = told(connection)

    assert statement["subject"] == [{"name": "structure", "digest": {"sha256": "a" * 64}}]
    (found,) = statement["predicate"]["calculations"]
    assert (found["process_type"], found["script"]) == (
        "aiida.calculations:quantum.pw",
        sha256("script"),
    )
    assert (found["versions"], found["scheduler"]["job_id"]) == (
        {"aiida-core": "2.9.4", "plugin": "4.5"},
        "17",
    )
    assert "attempt" not in found
    assert statement["predicate"]["inputs"] == []


def test_a_job_whose_provenance_is_gone_has_none(
    connection: psycopg.Connection, provenance: Provenance
) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched", "queued", "succeeded")
    connection.execute("UPDATE byoc.job SET process_pk = 99")

    assert refused(connection) == "receipt-unavailable"


def asked(connection: psycopg.Connection, settings: NodeSettings, tenant: str = "acme") -> Verdict:
    """The agent's verdict on a question for the receipt."""
    command = Command(
        command_id="7d8f0a6c-1b2e-4c3d-9e4f-5a6b7c8d9e0f",
        operation="receipt",
        tenant_id=tenant,
        job_id="job-1",
    )
    return decide(connection, settings, command)


@pytest.mark.usefixtures("job")
def test_the_agent_answers_with_a_receipt_of_the_nodes_key(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    key = made_key(settings.key_file)

    verdict = asked(connection, settings)

    assert verdict.receipt is not None
    assert verified(verdict.receipt, [public_key(key)]).predicate.job_id == "job-1"
    assert verdict.receipt == issue(connection, key, "acme", "job-1")


@pytest.mark.usefixtures("job")
def test_a_key_that_cannot_be_used_is_a_fault_of_the_node(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    verdict = asked(connection, settings)

    assert verdict.problem is not None
    assert verdict.problem.type.endswith("/node-failed")


@pytest.mark.usefixtures("job")
def test_the_agent_serves_the_tenants_of_its_policy_alone(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    made_key(settings.key_file)
    policy = settings.policy_file
    policy.write_text(policy.read_text().replace('["acme", "globex"]', '["globex"]'))

    verdict = asked(connection, settings)

    assert verdict.problem == ProblemError("not-found").problem()


@pytest.mark.usefixtures("job")
def test_what_is_too_long_for_an_adapter_is_said_and_can_be_written_on_the_node(
    connection: psycopg.Connection, settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made_key(settings.key_file)
    monkeypatch.setattr(issuing, "MAX_RECEIPT_BYTES", 1024)

    verdict = asked(connection, settings)

    assert verdict.problem is not None
    assert verdict.problem.type.endswith("/receipt-unavailable")
    assert "verdi data byoc jobs receipt" in verdict.problem.detail
    assert issue(connection, key, "acme", "job-1").content
