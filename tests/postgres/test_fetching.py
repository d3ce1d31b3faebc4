"""The lanes that fetch: over real HTTPS, into the node's store, once, whatever dies or changes meanwhile."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent import fetching
from aiida_byoc.agent.fetching import MOST_FAILURES, fetch_lanes
from aiida_byoc.commands import fetches, ledger
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.database.connection import connect
from aiida_byoc.node import NodeSettings
from tests.builders import NOW, cancel, submit_body
from tests.eventually import eventually
from tests.https_store import Answer, Store, https_store
from tests.postgres.jobs import accept, served

CONTENT = b"1,2\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Step = Callable[..., float]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with https_store(tmp_path) as store:
        store.answers["/file?signature=secret"] = Answer(CONTENT)
        yield store


@pytest.fixture
def allow(settings: NodeSettings, store: Store) -> Callable[..., None]:
    """Write the owner's word on data."""
    before = settings.policy_file.read_text()

    def write(*hosts: str, **more: int) -> None:
        lines = [f"{name} = {value}" for name, value in more.items()]
        named = ", ".join(f'"{host}"' for host in hosts)
        settings.policy_file.write_text(
            f'{before}\n[data]\nprivate_hosts = [{named}]\nca_file = "{store.ca_file}"\n'
            + "\n".join(lines)
        )

    write(f"localhost:{store.port}")
    return write


@pytest.fixture
def step(connection: psycopg.Connection, settings: NodeSettings, allow: object) -> Step:
    """Let a lane do one piece of work; return how long it would wait."""
    lanes = fetch_lanes(settings)
    return lambda lane="fetch-1": lanes[lane](connection, None)  # type: ignore[arg-type]


def workload(store: Store, path: str = "/file?signature=secret", sha256: str = SHA256) -> Any:
    inputs = [{"name": "data/in.csv", "url": store.url(path), "sha256": sha256}]
    return {**submit_body()["workload"], "inputs": inputs}


def launchable(connection: psycopg.Connection) -> str | None:
    with connection.transaction(force_rollback=True):
        job = next_job(connection, Limits())
        return job and str(job["job_id"])


def rows(connection: psycopg.Connection) -> list[Any]:
    return connection.execute(
        "SELECT submission_id::text, lane, failures, message FROM byoc.input_fetch"
    ).fetchall()


def last(connection: psycopg.Connection, submission: str) -> dict[str, Any]:
    query = "SELECT body -> 'data' FROM byoc.event WHERE submission_id = %s ORDER BY seq DESC"
    row = connection.execute(query, (submission,)).fetchone()
    assert row is not None
    return dict(row[0])


def test_a_job_waits_until_its_file_is_there(
    connection: psycopg.Connection, settings: NodeSettings, store: Store, step: Step
) -> None:
    accept(connection, "a", workload=workload(store))
    assert launchable(connection) is None

    assert step() == 0

    assert settings.fetched_files.path("acme", SHA256).read_bytes() == CONTENT
    assert rows(connection) == []
    assert launchable(connection) == "a"
    assert step() > 0


def test_a_table_of_tasks_is_fetched_and_kept_while_its_array_runs(
    connection: psycopg.Connection, settings: NodeSettings, store: Store, step: Step
) -> None:
    file = {"url": store.url("/file?signature=secret"), "sha256": SHA256}
    array = {"kind": "array", "image": "localhost/byoc/demo:1", "argv": ["{task_id}"]}
    accept(connection, "a", workload={**array, "tasks": {"count": 1000, "file": file}})
    assert launchable(connection) is None

    assert step() == 0

    assert settings.fetched_files.path("acme", SHA256).read_bytes() == CONTENT
    assert launchable(connection) == "a"
    assert fetches.wanted(connection) == {("acme", SHA256)}


def test_a_table_that_cannot_be_had_fails_its_array(
    connection: psycopg.Connection, store: Store, step: Step
) -> None:
    file = {"url": store.url("/not-there"), "sha256": SHA256}
    array = {"kind": "array", "image": "localhost/byoc/demo:1", "argv": ["{task_id}"]}
    submission = accept(connection, "a", workload={**array, "tasks": {"count": 1, "file": file}})

    step()

    error = last(connection, submission)["error"]
    assert error["code"] == "input_unavailable"
    assert "tasks" in error["message"]


def test_a_file_is_fetched_once_for_all_jobs_of_a_tenant(
    connection: psycopg.Connection, store: Store, step: Step
) -> None:
    """And later ones find it there."""
    for job in ("a", "b"):
        accept(connection, job, workload=workload(store))
    step()
    accept(connection, "c", workload=workload(store))
    step()

    assert rows(connection) == []
    assert len(store.asked) == 1


def test_i23_tenants_share_nothing(
    connection: psycopg.Connection, settings: NodeSettings, store: Store, step: Step
) -> None:
    """Who knows the hash of another's file does not get it by any other address."""
    accept(connection, "a", workload=workload(store))
    step()
    submission = accept(connection, "b", tenant_id="globex", workload=workload(store, "/not-there"))
    step()

    assert not settings.fetched_files.path("globex", SHA256).exists()
    assert last(connection, submission)["error"]["code"] == "input_unavailable"


@pytest.mark.parametrize(
    ("path", "sha256", "words"),
    [
        ("/not-there?signature=secret", SHA256, "it was answered HTTP 404"),
        ("/file?signature=secret", "0" * 64, "its sha256 is another"),
    ],
)
def test_what_cannot_be_had_fails_the_job(
    *,
    connection: psycopg.Connection,
    settings: NodeSettings,
    store: Store,
    step: Step,
    path: str,
    sha256: str,
    words: str,
) -> None:
    """With the input's name, the host, and nothing secret; nothing is left of it."""
    submission = accept(connection, "a", workload=workload(store, path, sha256))

    step()

    event = last(connection, submission)
    assert (event["state"], event["error"]["code"], event["error"]["retryable"]) == (
        "failed",
        "input_unavailable",
        True,
    )
    message = event["error"]["message"]
    assert (
        message == f"the input data/in.csv cannot be fetched from localhost:{store.port}: {words}"
    )
    assert rows(connection) == []
    assert not settings.fetched_files.path("acme", sha256).exists()


def test_a_failing_host_is_asked_again_but_not_for_ever(
    connection: psycopg.Connection, store: Store, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_FIRST_SECONDS", 0.0)
    store.answers["/file?signature=secret"] = Answer(status=503)
    submission = accept(connection, "a", workload=workload(store))

    for failures in range(1, MOST_FAILURES):
        step()
        assert rows(connection) == [(submission, None, failures, "it was answered HTTP 503")]
    step()

    assert rows(connection) == []
    assert len(store.asked) == MOST_FAILURES
    assert "HTTP 503" in last(connection, submission)["error"]["message"]


def test_a_host_that_recovers_is_fine(
    connection: psycopg.Connection, store: Store, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that breaks off."""
    monkeypatch.setattr(fetching, "_FIRST_SECONDS", 0.0)
    broken = Answer(CONTENT[:7], None, headers={"Content-Length": str(len(CONTENT))})
    answers = iter([Answer(status=500), broken, Answer(CONTENT)])
    store.answers["/file?signature=secret"] = lambda: next(answers)
    accept(connection, "a", workload=workload(store))

    for _ in range(3):
        step()

    assert launchable(connection) == "a"


def test_a_failure_waits_longer_each_time_and_as_long_as_asked(
    connection: psycopg.Connection, store: Store, step: Step
) -> None:
    store.answers["/file?signature=secret"] = Answer(status=429, headers={"Retry-After": "200"})
    accept(connection, "a", workload=workload(store))
    step()

    row = connection.execute(
        "SELECT extract(epoch FROM not_before - now()) BETWEEN 190 AND 200 FROM byoc.input_fetch"
    )
    assert row.fetchone() == (True,)
    assert step() > 0


def test_an_owner_who_changes_the_policy_is_heard_at_once(
    connection: psycopg.Connection, store: Store, step: Step, allow: Callable[..., None]
) -> None:
    submission = accept(connection, "a", workload=workload(store))
    allow("other.example:443")

    step()

    assert "policy does not allow" in last(connection, submission)["error"]["message"]
    assert store.asked == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_large_is_refused(
    connection: psycopg.Connection, store: Store, step: Step, allow: Callable[..., None], announced: bool
) -> None:  # fmt: skip
    allow(f"localhost:{store.port}", max_input_bytes=100)
    if not announced:
        store.answers["/file?signature=secret"] = Answer(CONTENT, headers={"Content-Length": ""})
    submission = accept(connection, "a", workload=workload(store))

    step()

    message = last(connection, submission)["error"]["message"]
    assert "100" in message
    assert "policy" in message


def test_nothing_is_fetched_for_a_job_that_was_cancelled(
    connection: psycopg.Connection, store: Store, step: Step
) -> None:
    accept(connection, "a", workload=workload(store))
    ledger.cancel(connection, cancel(job_id="a"), serve=served, now=NOW)

    step()

    assert (rows(connection), store.asked) == ([], [])


def test_a_cancel_stops_what_is_under_way(
    *,
    connection: psycopg.Connection,
    open_connection: Callable[[], psycopg.Connection],
    settings: NodeSettings,
    store: Store,
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "_WANTED_SECONDS", 0.0)
    other = open_connection()

    def cancelled() -> Answer:
        ledger.cancel(other, cancel(job_id="a"), serve=served, now=NOW)
        return Answer(CONTENT)

    store.answers["/file?signature=secret"] = cancelled
    accept(connection, "a", workload=workload(store))

    step()

    assert rows(connection) == []
    assert not settings.fetched_files.path("acme", SHA256).exists()


def test_a_lane_takes_up_what_its_dead_predecessor_had_claimed(
    connection: psycopg.Connection, store: Store, step: Step
) -> None:
    """Another one does not; nor does it fetch the same file for another job."""
    accept(connection, "a", workload=workload(store))
    claimed = fetches.claim(connection, "fetch-1")
    accept(connection, "b", workload=workload(store))

    assert fetches.claim(connection, "fetch-2") is None
    assert fetches.claim(connection, "fetch-1") == claimed
    step()
    assert rows(connection) == []


def test_lanes_work_side_by_side(connection: psycopg.Connection, store: Store, step: Step) -> None:
    accept(connection, "a", workload=workload(store))
    fetches.claim(connection, "fetch-1")
    submission = accept(connection, "b", workload=workload(store, "/other", "1" * 64))

    step("fetch-2")

    assert last(connection, submission)["state"] == "failed"


def run_lane(storage: dict[str, Any], settings: dict[str, Any]) -> None:
    """A process that fetches until it is killed."""
    with connect(storage, application="lane") as connection:
        lane = fetch_lanes(NodeSettings.model_validate(settings))["fetch-1"]
        while True:
            lane(connection, None)  # type: ignore[arg-type]


def test_a_process_that_dies_while_it_fetches_costs_nothing(
    connection: psycopg.Connection,
    storage: dict[str, Any],
    settings: NodeSettings,
    store: Store,
    step: Step,
) -> None:
    """Half a file is no file, and the next one begins anew."""
    going_on = threading.Event()

    class Slow(Answer):
        @property
        def pieces(self) -> Iterator[bytes]:  # type: ignore[override]
            yield CONTENT[:1000]
            going_on.wait(60)
            yield CONTENT[1000:]

        @pieces.setter
        def pieces(self, _: object) -> None:
            pass

    store.answers["/file?signature=secret"] = Slow(CONTENT)
    accept(connection, "a", workload=workload(store))
    process = multiprocessing.get_context("spawn").Process(
        target=run_lane, args=(storage, settings.model_dump(mode="json"))
    )
    process.start()
    draft = settings.fetched_files.path("acme", ".fetch-1")
    eventually(draft.exists, "the file to be on its way", seconds=60)
    process.kill()
    process.join()
    assert draft.exists()
    assert launchable(connection) is None
    going_on.set()

    step()

    assert launchable(connection) == "a"
    assert [path.name for path in draft.parent.iterdir()] == [SHA256]


def test_what_jobs_still_read_is_not_removed(
    connection: psycopg.Connection, settings: NodeSettings, store: Store, step: Step
) -> None:
    import os

    submission = accept(connection, "a", workload=workload(store))
    step()
    os.utime(settings.fetched_files.path("acme", SHA256), (0, 0))

    step("fetched")
    assert settings.fetched_files.path("acme", SHA256).exists()
    connection.execute(
        "UPDATE byoc.job SET state = 'succeeded' WHERE submission_id = %s", (submission,)
    )
    step("fetched")
    assert not settings.fetched_files.path("acme", SHA256).exists()
