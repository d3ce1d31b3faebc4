"""From the submission endpoint to the projection, on the real stack."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from typing import Any

import psycopg

from aiida_byoc.contracts.receipt.verification import public_keys, read_envelope, verified
from lab.process import wait_until


def shown_key(lab: dict[str, Any]) -> bytes:
    """The node's public key, as its operator shows it."""
    node = lab["node"]
    verdi = [sys.executable, "-m", "aiida", "-p", node["profile"], "data", "byoc"]
    return subprocess.run(
        [*verdi, "node", "show", "--public-key"],
        env={**os.environ, **node["environment"]},
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout


def test_a_job_runs_and_its_projection_holds_the_result(
    acme: Any, globex: Any, database: psycopg.Connection
) -> None:
    """202, events 1…n in order, one projection per event, the file that the container computed, and a receipt of it."""
    workload = {
        "inputs": [{"name": "numbers", "text": "1 2 3\n"}],
        "outputs": [{"name": "sum"}],
    }
    command = acme.command(
        "sh", "-c", "read a b c < numbers; echo $((a+b+c)) > sum", workload=workload
    )

    response = acme.submit(command)

    accepted = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"{acme.jobs}/{command['job_id']}"
    assert "Idempotency-Replayed" not in response.headers
    assert (accepted["status"], accepted["node_id"]) == ("accepted", acme.lab["node"]["node_id"])

    projection = acme.wait(command["job_id"])
    assert projection["state"] == "succeeded"
    assert projection["result"]["exit_code"] == 0
    assert projection["result"]["image_digest"] == acme.lab["images"][0]["digest"]
    assert projection["result"]["outputs"][0]["size"] == 2
    assert projection["trace_id"] == accepted["trace_id"]

    events = [
        row[0]
        for row in database.execute(
            "SELECT body FROM byoc.event WHERE submission_id = %s ORDER BY seq",
            (accepted["submission_id"],),
        )
    ]
    assert [event["data"]["seq"] for event in events] == list(range(1, len(events) + 1))
    timeline = acme.query(
        "jobs:timeline",
        job_id=command["job_id"],
        paginationOpts={"numItems": 100, "cursor": None},
    )["page"]
    assert sorted(entry["seq"] for entry in timeline) == [event["data"]["seq"] for event in events]
    assert projection["seq"] == len(events)

    stored = subprocess.run(
        [sys.executable, "-m", "lab.provenance", "byoc", projection["execution_id"], "sum"],
        env={**os.environ, **acme.lab["node"]["environment"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert stored.stdout == "6\n"

    receipt = acme.http.get(f"{acme.jobs}/{command['job_id']}/receipt")
    statement = verified(read_envelope(receipt.content), public_keys(shown_key(acme.lab)))
    assert statement.outputs == {"sum": hashlib.sha256(b"6\n").hexdigest()}
    assert statement.predicate.submission_id == accepted["submission_id"]
    assert statement.predicate.execution_id == projection["execution_id"]
    foreign = globex.http.get(f"{globex.jobs}/{command['job_id']}/receipt")
    nobodys = globex.http.get(f"{globex.jobs}/{uuid.uuid4()}/receipt")
    assert (foreign.status_code, foreign.json()) == (404, nobodys.json())


def test_a_failing_job_says_why(acme: Any) -> None:
    """State, code and exit status reach the user."""
    command = acme.command("sh", "-c", "exit 3")
    acme.submit(command)

    projection = acme.wait(command["job_id"])

    assert (projection["state"], projection["error"]["code"]) == ("failed", "container_failed")
    assert projection["error"]["retryable"] is False
    assert projection["result"]["exit_code"] == 3


def test_the_same_key_gives_the_same_answer_and_no_second_job(acme: Any, rows: Any) -> None:
    """Also when it is traced differently; another command under the key is refused without a word of the first."""
    command = acme.command("true")
    key = str(uuid.uuid4())
    first = acme.submit(command, key)
    before = rows()

    again = acme.submit({**command, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, key)
    other = acme.submit(acme.command("secret-of-the-second"), key)
    same_job = acme.submit(command)

    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.status_code == 422
    assert other.json()["type"].endswith("/idempotency-key-reused")
    assert command["job_id"] not in other.text
    assert (same_job.status_code, same_job.json()["type"].rpartition("/")[2]) == (
        409,
        "job-id-conflict",
    )
    assert rows() == before


def test_a_running_job_is_cancelled_in_slurm_too(acme: Any) -> None:
    """The projection says cancelled, Slurm has nothing running, repeating the cancel is harmless."""
    command = acme.command("sleep", "600")
    acme.submit(command)
    running = acme.wait(command["job_id"], "running")
    too_soon = acme.http.get(f"{acme.jobs}/{command['job_id']}/receipt")

    answer = acme.cancel(command["job_id"])
    projection = acme.wait(command["job_id"])
    again = acme.cancel(command["job_id"])

    assert (too_soon.status_code, too_soon.json()["detail"]) == (
        409,
        "The job is running; ask when it has ended.",
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    assert projection["state"] == "cancelled"
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")

    def gone() -> bool:
        shown = subprocess.run(
            ["scontrol", "show", "job", running["scheduler"]["job_id"]],
            env={**os.environ, "SLURM_CONF": acme.lab["slurm"]["conf"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return "JobState=CANCELLED" in shown

    wait_until(gone, 30, "Slurm to have cancelled the job")


def test_a_cancel_in_any_moment_ends_the_job(acme: Any) -> None:
    """Right after acceptance, while it is launched, while it starts: the job never outlives its cancel."""
    commands = [acme.command("sleep", "600") for _ in range(4)]
    for command in commands:
        acme.submit(command)
        acme.cancel(command["job_id"])

    states = {acme.wait(command["job_id"])["state"] for command in commands}

    assert states == {"cancelled"}
    wait_until(lambda: _sleeping(acme) == [], 30, "Slurm to have nothing left")


def test_a_cancel_that_comes_first_wins(acme: Any) -> None:
    """The late submission is refused and never launched."""
    command = acme.command("true")

    cancelled = acme.cancel(command["job_id"])
    submitted = acme.submit(command)

    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert (submitted.status_code, submitted.json()["type"].rpartition("/")[2]) == (
        409,
        "job-cancelled",
    )


def test_live_state_is_read_from_the_node(acme: Any) -> None:
    """GET tells what the ledger holds now."""
    command = acme.command("true")
    accepted = acme.submit(command).json()
    acme.wait(command["job_id"])

    response = acme.http.get(f"{acme.jobs}/{command['job_id']}")

    view = response.json()
    assert response.status_code == 200
    assert view["job"]["submission_id"] == accepted["submission_id"]
    assert view["job"]["state"] == "succeeded"


def test_an_approved_image_that_is_not_there_is_told(acme: Any) -> None:
    """The policy allows the digest, the store does not have it."""
    repository = acme.lab["images"][0]["ref"].rpartition(":")[0]
    command = acme.command(workload={"image": f"{repository}@sha256:{'0' * 64}"})
    acme.submit(command)

    projection = acme.wait(command["job_id"])

    assert projection["error"]["code"] == "image_missing"


def test_many_jobs_at_once_all_end_once(acme: Any, database: psycopg.Connection) -> None:
    """Two dozen commands, each submitted twice at the same time: one job each, each with one Slurm job."""
    from concurrent.futures import ThreadPoolExecutor

    commands = [
        (
            acme.command(
                "sh", "-c", f"echo {number} > out", workload={"outputs": [{"name": "out"}]}
            ),
            str(uuid.uuid4()),
        )
        for number in range(12)
    ]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda pair: acme.submit(*pair), commands * 2))

    assert {answer.status_code for answer in answers} == {202}
    submissions = {answer.json()["submission_id"] for answer in answers}
    assert len(submissions) == len(commands)
    slurm_jobs = {
        acme.wait(command["job_id"], seconds=180)["scheduler"]["job_id"] for command, _ in commands
    }
    assert len(slurm_jobs) == len(commands)
    counted = database.execute(
        "SELECT count(*) FROM db_dbnode WHERE process_type = 'aiida.workflows:byoc.job' AND label = ANY(%s)",
        ([f"byoc:{submission}" for submission in submissions],),
    ).fetchone()
    assert counted == (len(commands),)


def test_the_operator_sees_it_too(acme: Any) -> None:
    """`verdi data byoc status`, `jobs list` and `events list` on the node."""
    command = acme.command("true")
    acme.submit(command)
    acme.wait(command["job_id"])

    def verdi(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["verdi", "-p", "byoc", *words],
            env={**os.environ, **acme.lab["node"]["environment"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    status = verdi("data", "byoc", "status")
    jobs = json.loads(verdi("data", "byoc", "jobs", "list", "--json").stdout)
    events = json.loads(
        verdi("data", "byoc", "events", "list", "--json", "--job", command["job_id"]).stdout
    )

    assert status.returncode == 0, status.stdout + status.stderr
    assert command["job_id"] in [job["job_id"] for job in jobs]
    assert events[0]["state"] == "accepted"
    assert {event["delivery"] for event in events} == {"delivered"}


def test_the_product_sees_the_node_alive(acme: Any) -> None:
    """The heartbeat reaches the product with versions, queues and runtimes."""
    node = wait_until(
        lambda: next((each for each in acme.query("nodes:list") if "heartbeat" in each), None),
        60,
        "the first heartbeat",
    )

    assert node is not None
    report = node["heartbeat"]["report"]
    assert "bubblewrap" in report["runtimes"]
    assert acme.lab["queue_name"] in report["queues"]
    assert "aiida-core" in report["versions"]


def _sleeping(acme: Any) -> list[str]:
    """The Slurm jobs that have not ended."""
    return subprocess.run(
        ["squeue", "--noheader", "--format=%j"],
        env={**os.environ, "SLURM_CONF": acme.lab["slurm"]["conf"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
