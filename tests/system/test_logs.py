"""Logs over the whole way: while a job runs, after it, followed; and a reader that hangs holds up nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lab.chaos.parts import READER, Parts
from lab.paths import LabPaths
from lab.process import wait_until
from tests.labs import TERMINAL, Client

SECONDS = 60.0


def read(client: Client, job: str, accept: str = "application/json", **query: Any) -> Any:
    """GET a job's log."""
    headers = {"Accept": accept}
    return client.http.get(f"{client.jobs}/{job}/logs", params=query, headers=headers)


def until_written(client: Client, job: str, text: str, **query: Any) -> dict[str, Any]:
    """Read until this has been written."""

    def written() -> dict[str, Any] | None:
        answer = read(client, job, **query)
        chunk: dict[str, Any] = answer.json() if answer.is_success else {"data": ""}
        return chunk if chunk["data"] == text else None

    found = wait_until(written, SECONDS, f"{text!r} in the log")
    assert found is not None
    return found


def events(client: Client, job: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Follow a job's log; the event's kind is in its data."""
    path, asked = f"{client.jobs}/{job}/logs", {"follow": "true", **query}
    with client.http.stream("GET", path, params=asked, timeout=SECONDS) as response:
        assert response.status_code == 200
        kind = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            kind = value if name == "event" else kind
            if name == "data":
                yield {**json.loads(value), "kind": kind}


@pytest.fixture
def parts(lab: dict[str, Any], lab_paths: LabPaths) -> Parts:
    """The processes of the lab."""
    return Parts(lab_paths, lab, random.Random(1))  # noqa: S311  (chooses nothing here)


def test_a_log_is_read_while_the_job_runs_and_after_it(acme: Client, globex: Client) -> None:
    """Followed from the beginning to the end, and read again from provenance: the same bytes."""
    script = "echo one; sleep 4; echo two; printf '\\377\\000' >&2"
    command = acme.command("sh", "-c", script)
    job = command["job_id"]
    acme.submit(command)
    first = until_written(acme, job, "one\n")
    assert (first["complete"], first["next_offset"]) == (False, 4)
    assert first["state"] not in TERMINAL

    told = list(events(acme, job))
    acme.wait(job, "succeeded")

    assert "".join(event["data"] for event in told) == "one\ntwo\n"
    assert [event["kind"] for event in told][-1] == "end"
    assert told[-1]["state"] == "succeeded"
    after = read(acme, job).json()
    assert (after["data"], after["complete"], after["size"]) == ("one\ntwo\n", True, 8)
    assert read(acme, job, accept="text/plain", stream="stderr").content == b"\xff\x00"
    assert read(acme, job, offset=-4).json()["data"] == "two\n"
    foreign, unknown = read(globex, job), read(acme, "no-such-job")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json()


def test_the_log_of_a_cancelled_job_is_kept(acme: Client) -> None:
    command = acme.command("sh", "-c", "echo last words; sleep 600")
    job = command["job_id"]
    acme.submit(command)
    until_written(acme, job, "last words\n")

    acme.cancel(job)
    told = list(events(acme, job))
    acme.wait(job, "cancelled")

    assert [(event["kind"], event["data"]) for event in told if event["data"]] == [
        ("log", "last words\n")
    ]
    assert (told[-1]["kind"], told[-1]["state"]) == ("end", "cancelled")
    assert read(acme, job).json()["complete"]


def test_a_reader_that_hangs_or_dies_delays_no_submission_and_no_cancel(
    acme: Client, parts: Parts
) -> None:
    """Whoever waits for a log hears that it cannot be read now; the agent starts another reader."""
    command = acme.command("sh", "-c", "echo hello; sleep 600")
    job = command["job_id"]
    acme.submit(command)
    until_written(acme, job, "hello\n")
    [reader] = parts.find(READER)
    parts.freeze(reader)
    heard: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: heard.append(read(acme, job)))
    waiting.start()

    began = time.monotonic()
    other = acme.command("true")
    answers = acme.submit(other).status_code, acme.cancel(job).status_code
    took = time.monotonic() - began
    acme.wait(other["job_id"], "succeeded")
    acme.wait(job, "cancelled")
    waiting.join()

    assert answers == (202, 202)
    assert took < 5
    assert (heard[0].status_code, heard[0].json()["retry"]) == (503, True)
    assert int(heard[0].headers["Retry-After"]) >= 1
    until_written(acme, job, "hello\n")
    [second] = parts.find(READER)
    assert second.pid != reader.pid
    os.kill(second.pid, signal.SIGKILL)
    until_written(acme, job, "hello\n")
