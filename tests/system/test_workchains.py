"""Work chains of other plugins, approved by the node's owner, through the whole stack."""

from __future__ import annotations

import hashlib
import subprocess
from typing import Any

import pytest

from lab.process import wait_until

ARITHMETIC = "core.arithmetic.multiply_add"
SHELL = "lab.shell"


def chain(client: Any, entry_point: str, **inputs: Any) -> dict[str, Any]:
    command = client.command()
    workload = {"kind": "workchain", "entry_point": entry_point, "inputs": inputs}
    return {**command, "workload": workload}


def shell(client: Any, script: str) -> dict[str, Any]:
    return chain(
        client, SHELL, script={"filename": "script.sh", "text": script}, greeting="good day"
    )


def timeline(client: Any, job_id: str) -> list[str]:
    page = {"numItems": 100, "cursor": None}
    steps = client.query("jobs:timeline", job_id=job_id, paginationOpts=page)["page"]
    return [step["execution_state"] for step in sorted(steps, key=lambda step: step["seq"])]


def slurm(client: Any, *command: str) -> str:
    environment = client.lab["node"]["environment"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def verdi(client: Any, *command: str) -> str:
    return slurm(client, "verdi", "-p", client.lab["node"]["profile"], *command)


def test_a_work_chain_of_aiidas_own_tells_its_result(acme: Any) -> None:
    """The same ledger, events and projections as a container's."""
    command = chain(acme, ARITHMETIC, x=2, y=3, z=4)
    assert acme.submit(command).status_code == 202

    projection = acme.wait(command["job_id"])

    assert projection["state"] == "succeeded"
    assert projection["result"]["values"] == [{"name": "result", "json_text": "10"}]
    assert timeline(acme, command["job_id"]) == [
        *("accepted", "launched", "queued", "running", "succeeded"),
    ]


def test_a_work_chain_of_a_plugin_gets_its_shape_and_tells_its_files(acme: Any) -> None:
    """aiida-shell's job inside a work chain of somebody else's; what it asks Slurm for is the command's."""
    text = 'printf "%s\\n" "$SLURM_JOB_PARTITION $SLURM_MEM_PER_NODE"\n'
    command = shell(acme, text)
    assert acme.submit(command).status_code == 202

    projection = acme.wait(command["job_id"])

    assert projection["state"] == "succeeded"
    assert projection["result"]["values"] == [{"name": "greeting", "json_text": '"good day"'}]
    said = b"main 128\n"
    assert projection["result"]["outputs"] == [
        {"name": "stdout", "size": len(said), "sha256": hashlib.sha256(said).hexdigest()}
    ]


def test_the_failure_of_a_work_chain_is_the_jobs(acme: Any) -> None:
    command = chain(acme, ARITHMETIC, x=-2, y=3, z=4)
    acme.submit(command)

    projection = acme.wait(command["job_id"])

    assert (projection["state"], projection["error"]["code"]) == ("failed", "workchain_failed")
    assert "exit status 400" in projection["error"]["message"]
    assert "The result is a negative number" in projection["error"]["message"]


@pytest.mark.parametrize(
    ("entry_point", "inputs", "changes", "field"),
    [
        ("core.sorting", {}, {}, "workload.entry_point"),
        (ARITHMETIC, {"x": 2, "y": 3}, {}, "workload.inputs.z"),
        (ARITHMETIC, {"x": 2, "y": 3, "z": "SECRET"}, {}, "workload.inputs.z"),
        (ARITHMETIC, {"x": 2, "y": 3, "z": 4, "code": "SECRET"}, {}, "workload.inputs"),
        (
            ARITHMETIC,
            {"x": 2, "y": 3, "z": 4},
            {"retry_policy": {"max_attempts": 2}},
            "retry_policy.max_attempts",
        ),
    ],
)
def test_what_the_owner_has_not_approved_is_refused(
    acme: Any, entry_point: str, inputs: Any, changes: Any, field: str
) -> None:
    answer = acme.submit({**chain(acme, entry_point, **inputs), **changes})

    assert answer.json()["type"].endswith("/policy-refused")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert all(error["remedy"] for error in answer.json()["errors"])
    assert "SECRET" not in answer.text


def test_inputs_that_only_the_work_chain_refuses_end_the_job(acme: Any) -> None:
    """The owner's schema admits them, a port does not: the port is named, nothing was run."""
    command = chain(
        acme, SHELL, script={"filename": "a", "text": "true", "more": 1}, greeting="hello"
    )
    acme.submit(command)

    projection = acme.wait(command["job_id"])

    assert (projection["state"], projection["error"]["code"]) == ("failed", "inputs_invalid")
    assert "the input script" in projection["error"]["message"]


def test_a_cancel_stops_what_a_work_chain_has_in_slurm(acme: Any) -> None:
    command = shell(acme, "exec sleep 300\n")
    acme.submit(command)

    def job() -> str:
        return slurm(acme, "squeue", "--noheader", "--format=%i %j", "--states=running").strip()

    wait_until(lambda: "aiida-" in job(), 60, "the calculation to run in Slurm")
    assert acme.cancel(command["job_id"]).status_code == 202

    assert acme.wait(command["job_id"])["state"] == "cancelled"
    assert "aiida-" not in job()


def test_a_paused_process_below_holds_the_job(acme: Any, database: Any) -> None:
    """Another plugin's process has no hook of ours; the witness sees it all the same."""
    command = shell(acme, "exec sleep 300\n")
    acme.submit(command)

    def calculation() -> Any:
        return database.execute(
            "SELECT below.process_pk FROM byoc.job, byoc.descendants(job.process_pk) AS below"
            " JOIN db_dbnode ON db_dbnode.id = below.process_pk"
            " WHERE job.job_id = %s AND node_type LIKE 'process.calculation.calcjob%%'"
            " AND attributes ->> 'state' = 'withscheduler'",
            (command["job_id"],),
        ).fetchone()

    (pk,) = wait_until(calculation, 60, "the calculation to be in Slurm")
    verdi(acme, "process", "pause", str(pk))
    held = acme.wait(command["job_id"], "attention")
    verdi(acme, "process", "play", str(pk))
    acme.wait(command["job_id"], "running")
    acme.cancel(command["job_id"])

    assert held["execution_state"] == "held"
    assert acme.wait(command["job_id"])["state"] == "cancelled"
