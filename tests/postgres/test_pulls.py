"""An approved image that the store lacks is fetched before its jobs are launched, or they are told why not."""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent.channel import decide
from aiida_byoc.agent.pulling import MOST_FAILURES, pull_lanes
from aiida_byoc.commands import image_use, pulls
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.policy import Limits
from aiida_byoc.contracts.delivery import Command
from aiida_byoc.contracts.events import JobError
from aiida_byoc.node import NodeSettings
from aiida_byoc.runtimes.images import ImageStore
from lab import registry
from lab.paths import LabPaths
from tests.builders import DIGEST, POLICY, submit_body
from tests.labs import scratch_lab
from tests.postgres.conftest import Connect
from tests.postgres.reading import events, states, wait_for_lock
from tests.unit.node.oci import file, index, layer, layout
from tests.unit.node.test_oci import HERE

COMMAND_ID = "33333333-3333-4333-8333-333333333333"
REPOSITORY = "lab/tool"
STATES = ["accepted", "launched", "queued", "running", "held", "succeeded", "failed", "cancelled"]


@pytest.fixture(scope="module")
def paths() -> Iterator[LabPaths]:
    with scratch_lab("pulls") as paths:
        yield paths


@pytest.fixture(scope="module")
def server(paths: LabPaths) -> registry.Registry:
    return registry.start(paths)


@pytest.fixture(scope="module")
def source(paths: LabPaths) -> Path:
    return paths.directory("layout")


@pytest.fixture(scope="module")
def pushed(server: registry.Registry, source: Path) -> str:
    """The digest of an image at the registry."""
    digest = layout(source, [layer(file("a", "x" * 5000))])
    return registry.push(server, source, REPOSITORY, digest=digest)


class Site:
    """A node, as its agent sees it, beside a registry."""

    def __init__(self, connection: psycopg.Connection, settings: NodeSettings, host: str) -> None:
        self.connection, self.settings, self.host = connection, settings, host
        self.store = ImageStore(settings.image_store)

    def approve(self, *digests: str, **options: Any) -> None:
        """Let these digests be pulled from the registry, in the owner's policy."""
        listed = ", ".join(f'"{digest}"' for digest in digests)
        words = "".join(
            f"{name} = {value}\n" for name, value in {"pull": "true", **options}.items()
        )
        section = f'[images."{self.host}/{REPOSITORY}"]\ndigests = [{listed}]\n{words}'
        self.settings.policy_file.write_text(f"{POLICY}\n{section}")

    def accept(
        self,
        digest: str,
        *,
        repository: str | None = None,
        over: psycopg.Connection | None = None,
        **changes: Any,
    ) -> str:
        """Send a command for an image through the channel; return the submission."""
        job = f"job-{uuid.uuid4().hex[:8]}"
        body = submit_body(job_id=job, **changes)
        image = f"{repository or f'{self.host}/{REPOSITORY}'}@{digest}"
        body["workload"] = {**body["workload"], "image": image}
        command = Command(
            command_id=COMMAND_ID,
            operation="submit",
            tenant_id="acme",
            job_id=job,
            idempotency_key=f"key-of-{job}",
            body=body,
        )
        verdict = decide(over or self.connection, self.settings, command)
        assert verdict.acceptance is not None, verdict
        return verdict.acceptance.submission_id

    def step(self, lane: str = "images-1", settings: NodeSettings | None = None) -> float:
        """What one lane of the agent does in one round."""
        lanes = pull_lanes(settings or self.settings)
        return lanes[lane](self.connection, None)  # type: ignore[arg-type]

    def launchable(self) -> str | None:
        """Which job the launcher would take next."""
        with self.connection.transaction(force_rollback=True):
            job = next_job(self.connection, Limits())
        return str(job["submission_id"]) if job else None

    def error(self, submission: str) -> JobError:
        """Why the job failed."""
        error = events(self.connection, submission)[-1].data.error
        assert error is not None
        return error

    def waiting(self) -> list[tuple[Any, ...]]:
        """What is to be pulled: failures, and the last one's message."""
        return self.connection.execute("SELECT failures, message FROM byoc.image_pull").fetchall()

    def hurry(self) -> None:
        """Let what was put off be due."""
        self.connection.execute("UPDATE byoc.image_pull SET not_before = now()")


@pytest.fixture
def site(connection: psycopg.Connection, settings: NodeSettings, server: registry.Registry) -> Site:
    return Site(connection, settings, server.host)


@pytest.fixture
def nowhere(connection: psycopg.Connection, settings: NodeSettings) -> Site:
    """A node whose registry is down."""
    return Site(connection, settings, "127.0.0.1:1")


def test_a_job_waits_for_its_image_and_no_other_job_does(site: Site, pushed: str) -> None:
    site.approve(pushed)
    first = site.accept(pushed)
    assert site.launchable() is None
    other = site.accept(DIGEST, repository="localhost/byoc/demo")
    assert site.launchable() == other

    assert site.step() == 0

    assert site.launchable() == first
    assert (site.store.rootfs(pushed) / "a").is_file()
    assert site.waiting() == []
    assert site.step() > 0


def test_nobody_waits_for_an_image_that_is_there(site: Site, source: Path, pushed: str) -> None:
    site.store.add(source, pushed)
    site.approve(pushed)

    submission = site.accept(pushed)

    assert site.waiting() == []
    assert site.launchable() == submission


def test_without_the_owners_word_nothing_is_pulled(site: Site, pushed: str) -> None:
    """The job is launched, and its work chain says that the image is missing."""
    site.approve(pushed, pull="false")

    submission = site.accept(pushed)

    assert site.waiting() == []
    assert site.launchable() == submission


def test_what_the_operator_added_meanwhile_is_not_pulled(
    nowhere: Site, source: Path, pushed: str
) -> None:
    nowhere.approve(pushed)
    submission = nowhere.accept(pushed)
    nowhere.store.add(source, pushed)

    nowhere.step()

    assert nowhere.launchable() == submission


def test_a_registry_that_is_down_is_asked_ever_more_seldom_then_the_jobs_fail(
    nowhere: Site, pushed: str
) -> None:
    """All that wait, with what the last attempt ended in."""
    nowhere.approve(pushed)
    submissions = [nowhere.accept(pushed) for _ in range(2)]
    query = "SELECT extract(epoch FROM not_before - now())::float FROM byoc.image_pull"
    pauses = []

    for _ in range(MOST_FAILURES - 1):
        nowhere.step()
        pauses += [pause for (pause,) in nowhere.connection.execute(query)]
        assert nowhere.step() > 0, "not due yet"
        nowhere.hurry()
    assert nowhere.launchable() is None
    ((failures, message),) = nowhere.waiting()
    nowhere.step()

    assert failures == MOST_FAILURES - 1
    assert "127.0.0.1:1 does not answer" in message
    assert [round(pause / 5) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60]
    assert nowhere.waiting() == []
    for submission in submissions:
        error = nowhere.error(submission)
        assert (error.code, error.retryable) == ("image_pull_failed", True)
        assert f"127.0.0.1:1/{REPOSITORY}@{pushed} cannot be pulled: the registry" in error.message


def test_what_no_waiting_cures_fails_at_once_and_a_later_job_begins_anew(site: Site) -> None:
    site.approve(DIGEST)
    submission = site.accept(DIGEST)

    site.step()

    assert "does not have it (HTTP 404, MANIFEST_UNKNOWN" in site.error(submission).message
    again = site.accept(DIGEST)
    assert site.waiting() == [(0, None)]
    site.step()
    for each in (submission, again):
        assert states(site.connection, each) == ["accepted", "failed"]


def test_an_approved_index_names_what_to_approve_instead(
    site: Site, server: registry.Registry, source: Path, pushed: str
) -> None:
    """What a job runs is the digest that was approved, never one behind it."""
    top = index(source, {f"linux/{HERE}": pushed})
    registry.push(server, source, REPOSITORY, digest=top)
    site.approve(top)
    submission = site.accept(top)

    site.step()

    said = f"the policy must approve one of them, such as {pushed} for linux/{HERE}"
    assert said in site.error(submission).message
    assert site.store.digests() == []


def test_an_image_beyond_the_owners_bound_is_not_pulled(
    site: Site, server: registry.Registry, source: Path
) -> None:
    large = layout(source, [layer(file("a", "x" * 3 * 2**20))])
    registry.push(server, source, REPOSITORY, digest=large)
    site.approve(large, max_mib=2)
    submission = site.accept(large)

    site.step()

    assert "has 3 MiB, and 2 MiB are allowed" in site.error(submission).message


def test_an_image_that_cannot_be_unpacked_is_the_work_chains_to_tell(
    site: Site, server: registry.Registry, source: Path
) -> None:
    """It has its own code; what was pulled is what was approved."""
    broken = layout(source, [b"no archive at all" * 99])
    registry.push(server, source, REPOSITORY, digest=broken)
    site.approve(broken)
    submission = site.accept(broken)

    site.step()

    assert site.store.has(broken)
    assert site.launchable() == submission


def test_a_store_that_cannot_be_written_is_told_without_its_place(site: Site, pushed: str) -> None:
    site.approve(pushed)
    submission = site.accept(pushed)
    site.settings.image_store.write_text("a file")

    for _ in range(MOST_FAILURES):
        site.step()
        site.hurry()

    message = site.error(submission).message
    assert "the node's image store cannot be used: " in message
    assert str(site.settings.image_store) not in message


def test_credentials_that_cannot_be_used_are_told_to_the_owner_alone(
    site: Site, pushed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may mend them before the tries are used up."""
    caplog.set_level(logging.INFO)
    file_ = tmp_path / "auth.json"
    file_.write_text("{}")
    file_.chmod(0o644)
    site.approve(pushed)
    site.accept(pushed)

    site.step(settings=site.settings.model_copy(update={"registry_auth_file": file_}))

    assert site.waiting() == [(1, "the node's credentials for registries cannot be used")]
    assert f"chmod 600 {file_}" in caplog.text


def test_a_cancelled_job_waits_no_longer_and_nothing_is_pulled_for_it(
    site: Site, pushed: str
) -> None:
    site.approve(pushed)
    site.accept(pushed)
    site.connection.execute("UPDATE byoc.job SET state = 'cancelled'")

    site.step()

    assert site.waiting() == []
    assert not site.store.has(pushed)


def test_a_deadline_passes_while_the_image_is_waited_for(site: Site, pushed: str) -> None:
    """The launcher takes the job, to tell so."""
    site.approve(pushed)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    submission = site.accept(pushed, deadline=soon)
    assert site.launchable() is None
    site.connection.execute("UPDATE byoc.job SET deadline = now()")

    assert site.launchable() == submission


def test_what_a_dead_agent_had_in_hand_is_taken_up_by_the_same_lane(
    site: Site, pushed: str
) -> None:
    """And by no other, which cannot know."""
    site.approve(pushed)
    submission = site.accept(pushed)
    site.connection.execute("UPDATE byoc.image_pull SET lane = 'images-2'")

    assert site.step("images-1") > 0
    assert site.step("images-2") == 0

    assert site.launchable() == submission


def test_a_job_that_is_accepted_while_the_others_are_failed_is_not_forgotten(
    site: Site, open_connection: Connect
) -> None:
    """Whoever settles waits for the acceptance, and fails that job as well: it is not launched without its image."""
    site.approve(DIGEST)
    site.accept(DIGEST)
    accepting, lane = open_connection(), open_connection()
    pull = pulls.claim(lane, "images-1")
    assert pull is not None
    settling = threading.Thread(target=lambda: pulls.give_up(lane, pull, "in vain"))

    with accepting.transaction():
        late = site.accept(DIGEST, over=accepting)
        settling.start()
        wait_for_lock(site.connection, lane)
    settling.join(30)

    assert site.error(late).code == "image_pull_failed"
    assert site.waiting() == []
    assert site.launchable() is None


def test_no_job_is_accepted_for_an_image_that_is_being_removed(
    site: Site, open_connection: Connect, source: Path, pushed: str
) -> None:
    """Acceptance waits, and sees then that the image is to be pulled."""
    site.store.add(source, pushed)
    site.approve(pushed)
    site.accept(pushed)
    site.connection.execute("UPDATE byoc.job SET state = 'succeeded'")
    channel = open_connection()
    accepting = threading.Thread(target=lambda: site.accept(pushed, over=channel))

    with image_use.used_digests(site.connection) as used:
        assert used == set()
        accepting.start()
        wait_for_lock(open_connection(), channel)
        shutil.rmtree(site.store.layout(pushed))
    accepting.join(30)

    assert site.waiting() == [(0, None)]
    with image_use.used_digests(site.connection) as used:
        assert used == {pushed}


def test_only_jobs_that_have_not_ended_use_an_image(site: Site) -> None:
    digests = {state: f"sha256:{number:064}" for number, state in enumerate(STATES)}
    site.approve(*digests.values())
    for state, digest in digests.items():
        submission = site.accept(digest)
        site.connection.execute(
            "UPDATE byoc.job SET state = %s WHERE submission_id = %s", (state, submission)
        )

    with image_use.used_digests(site.connection) as used:
        assert used == {digests[state] for state in STATES[:5]}
