"""What a program wrote, byte for byte: from the cluster while it runs, from provenance afterwards, in bounded parts."""

from __future__ import annotations

import base64
import os
import resource
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.manage import get_manager

from aiida_byoc.agent import logs
from aiida_byoc.agent.logs import LogDesk
from aiida_byoc.agent.reader import Reader
from aiida_byoc.contracts import Command, LogChunk, Verdict
from aiida_byoc.logs.source import Part, Source
from tests.builders import POLICY
from tests.engine.driving import Underway
from tests.eventually import eventually

GO = "while [ ! -e go ]; do sleep 0.1; done"
"""Shell for a container: wait until the test says so."""
SPARSE = 10 * 2**30


@pytest.fixture
def source(profile: Any) -> Source:
    """What the reader's process reads with."""
    return Source(get_manager().get_profile_storage())


def whole(source: Source, pk: int, stream: str, step: int) -> bytes:
    """Read a stream that is closed, in parts."""
    read = b""
    while True:
        part = source.read(pk, stream, offset=len(read), limit=step)
        assert part.is_closed
        assert len(part.content) <= step
        read += part.content
        if len(read) >= part.size:
            return read


def test_a_log_is_read_on_from_cluster_to_provenance_without_a_seam(
    node: Any, source: Source
) -> None:
    """The reader goes on from its offset; it need not know that the job has ended meanwhile."""
    job = Underway(node, node.accept("sh", "-c", f"echo one; {GO}; echo two; echo three >&2"))
    job.until_state("running")
    pk = job.attempt.pk
    first = eventually(
        lambda: (part := source.read(pk, "stdout", offset=0, limit=100)).content and part,
        "the first line",
    )
    assert first == Part(content=b"one\n", offset=0, size=4, is_closed=False)
    assert source.read(pk, "stdout", offset=4, limit=100).content == b""
    (job.directory / "work" / "go").touch()
    eventually(
        lambda: source.read(pk, "stdout", offset=4, limit=2).content == b"tw", "the second line"
    )
    assert not source.read(pk, "stdout", offset=4, limit=2).is_closed
    assert job.finish().is_finished_ok

    rest = source.read(pk, "stdout", offset=6, limit=100)

    assert rest == Part(content=b"o\n", offset=6, size=8, is_closed=True)
    assert source.read(pk, "stderr", offset=0, limit=100).content == b"three\n"
    assert whole(source, pk, "stdout", 3) == b"one\ntwo\n"


def test_binary_streams_survive(node: Any, source: Source) -> None:
    """All bytes, in both places."""
    escaped = "".join(f"\\{byte:03o}" for byte in range(256))
    job = Underway(node, node.accept("sh", "-c", f"printf '{escaped}' >&2; {GO}"))
    job.until_state("running")
    pk, everything = job.attempt.pk, bytes(range(256))

    eventually(
        lambda: source.read(pk, "stderr", offset=0, limit=1000).content == everything,
        "all bytes from the cluster",
    )
    (job.directory / "work" / "go").touch()
    job.finish()
    assert whole(source, pk, "stderr", 100) == everything


def test_parts_are_taken_from_either_end_and_beyond(node: Any, source: Source) -> None:
    job = Underway(node, node.accept("sh", "-c", f"printf 0123456789; {GO}"))
    job.until_state("running")
    pk = job.attempt.pk
    eventually(lambda: source.read(pk, "stdout", offset=0, limit=1).size == 10, "ten bytes")

    def parts() -> list[tuple[bytes, int, int]]:
        asked = [(-3, 100), (-3, 2), (-99, 3), (9, 100), (10, 5), (25, 5), (0, 10)]
        read = [source.read(pk, "stdout", offset=each, limit=limit) for each, limit in asked]
        return [(part.content, part.offset, part.size) for part in read]

    expected = [
        (b"789", 7, 10),
        (b"78", 7, 10),
        (b"012", 0, 10),
        (b"9", 9, 10),
        (b"", 10, 10),
        (b"", 25, 10),
        (b"0123456789", 0, 10),
    ]
    assert parts() == expected
    (job.directory / "work" / "go").touch()
    job.finish()
    assert parts() == expected


def test_a_log_of_ten_gigabytes_costs_no_more_than_the_part_that_is_read(
    node: Any, source: Source
) -> None:
    """Sparse; what a file system would have to hold is not what is to be shown."""
    job = Underway(node, node.accept("sh", "-c", f"echo begin; {GO}"))
    job.until_state("running")
    pk, log = job.attempt.pk, job.directory / "stdout"
    eventually(lambda: source.read(pk, "stdout", offset=0, limit=9).size, "something")
    with log.open("r+b") as file:
        file.seek(SPARSE - 4)
        file.write(b"end\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    end = source.read(pk, "stdout", offset=-4, limit=65536)
    middle = source.read(pk, "stdout", offset=SPARSE // 2, limit=65536)

    assert (end.content, end.offset, end.size) == (b"end\n", SPARSE - 4, SPARSE)
    assert (len(middle.content), set(middle.content)) == (65536, {0})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    os.truncate(log, 6)
    job.stop()


def test_a_log_is_not_read_through_a_link(node: Any, source: Source, tmp_path: Path) -> None:
    """It would be followed by the node's user. Nor is a pipe waited for."""
    secret = tmp_path / "secret"
    secret.write_text("not yours\n")
    job = Underway(node, node.accept("sh", "-c", GO))
    job.until_state("running")
    log = job.directory / "stdout"
    eventually(log.exists, "a log")
    log.unlink()
    log.symlink_to(secret)
    through = source.read(job.attempt.pk, "stdout", offset=0, limit=100)
    log.unlink()
    os.mkfifo(log)
    piped = source.read(job.attempt.pk, "stdout", offset=0, limit=100)

    nothing = Part(content=b"", offset=0, size=0, is_closed=False)
    assert (through, piped) == (nothing, nothing)
    log.unlink()
    job.stop()


def test_a_killed_attempt_has_its_log_where_it_was_written(node: Any, source: Source) -> None:
    """AiiDA fetches nothing of it; it is closed once Slurm has nothing of it any more."""
    job = Underway(node, node.accept("sh", "-c", f"echo last words; {GO}"))
    job.until_state("running")
    pk = job.attempt.pk
    eventually(lambda: source.read(pk, "stdout", offset=0, limit=99).content, "last words")
    job.kill()
    job.kill_attempt()
    assert not source.read(pk, "stdout", offset=0, limit=99).is_closed
    job.stop()

    part = source.read(pk, "stdout", offset=0, limit=99)

    assert part == Part(content=b"last words\n", offset=0, size=11, is_closed=True)


class Desk:
    """The agent's desk for logs, with a client of one tenant before it and a reader behind it."""

    def __init__(self, node: Any, desk: LogDesk) -> None:
        self._node, self.desk = node, desk
        self.heard: list[tuple[str, Verdict]] = []

    def verdict(self, command_id: str, verdict: Verdict) -> None:
        """What the adapter hears."""
        self.heard.append((command_id, verdict))

    def command(self, submission: str, tenant: str = "acme", **wanted: Any) -> Command:
        """A request as the channel hands it over."""
        row = self._node.connection.execute(
            "SELECT job_id FROM byoc.job WHERE submission_id = %s", (submission,)
        ).fetchone()
        return Command(
            command_id=str(uuid.uuid4()),
            operation="logs",
            tenant_id=tenant,
            job_id=row[0] if row else "no-such-job",
            body=wanted,
        )

    def ask(self, submission: str, tenant: str = "acme", **wanted: Any) -> Verdict:
        """One request, and its answer."""
        command = self.command(submission, tenant, **wanted)
        assert self.desk.take(command) is None
        self.desk.step(self._node.connection, self)  # type: ignore[arg-type]
        assert self.heard[-1][0] == command.command_id
        return self.heard[-1][1]

    def read(self, submission: str, **wanted: Any) -> LogChunk:
        """One chunk, once the reader is up."""

        def answered() -> LogChunk | None:
            return self.ask(submission, **wanted).log

        chunk = eventually(answered, "the reader", seconds=60)
        assert chunk is not None
        return chunk


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(node: Any, profile: Any, tmp_path: Path) -> Iterator[MakeDesk]:
    """Desks with a reader: AiiDA's own, or a program that fails as a test wants."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    settings = node.settings.model_copy(update={"policy_file": policy})
    made: list[LogDesk] = []

    def make(program: str | None = None) -> Desk:
        real = ["-m", "aiida", "-p", profile.name, "data", "byoc", "agent", "read"]
        words = real if program is None else ["-c", program]
        made.append(LogDesk(settings, Reader([sys.executable, "-W", "ignore", *words])))
        return Desk(node, made[-1])

    yield make
    for desk in made:
        desk.close()


def test_a_job_that_has_not_started_has_an_empty_log(node: Any, make_desk: MakeDesk) -> None:
    """Accepted, launched, queued: its state is all there is to say."""
    desk, submission = make_desk(), node.accept("echo", "hello")

    accepted = desk.read(submission, offset=-10)
    node.launch(submission)
    launched = desk.read(submission)

    assert (accepted.state, launched.state) == ("accepted", "launched")
    for chunk in (accepted, launched):
        told = (chunk.data, chunk.size, chunk.offset, chunk.attempt, chunk.complete)
        assert told == ("", 0, 0, 1, False)


def test_each_attempt_has_its_log(
    node: Any, make_desk: MakeDesk, scontrol: Callable[..., str]
) -> None:
    """The newest, unless one is named; through the reader's own process."""
    script = 'echo "attempt of $0" | tr a-z A-Z; ' + GO
    retry = {"max_attempts": 2, "on": ["node_fail"]}
    submission = node.accept("sh", "-c", script, "me", retry_policy=retry)
    desk, job = make_desk(), Underway(node, submission)
    job.until_state("running")
    eventually(lambda: desk.read(submission).data, "the first attempt's log", seconds=60)
    machine = job.last["scheduler"]["nodes"][0]
    scontrol("update", f"NodeName={machine}", "State=DOWN", "Reason=test")
    try:
        job.until(lambda: job.last["attempt"] == 2 and job.last["state"] == "running", "another")
    finally:
        scontrol("update", f"NodeName={machine}", "State=RESUME")
    eventually(lambda: desk.read(submission).data, "the second attempt's log", seconds=60)

    newest, first = desk.read(submission), desk.read(submission, attempt=1)
    third = desk.read(submission, attempt=3)

    assert (newest.attempt, newest.latest_attempt, newest.complete) == (2, 2, False)
    assert (first.attempt, first.data, first.complete) == (1, "ATTEMPT OF ME\n", True)
    assert (third.attempt, third.data, third.complete) == (3, "", False)
    (job.directory / "work" / "go").touch()
    assert job.finish().is_finished_ok
    ended = desk.read(submission, offset=3, limit=4)
    assert (ended.data, ended.next_offset, ended.complete) == ("EMPT", 7, False)
    assert desk.read(submission, offset=7).complete
    assert desk.read(submission, attempt=3).complete


def test_i23_the_log_of_another_tenants_job_is_not_there(node: Any, make_desk: MakeDesk) -> None:
    """Word for word as of a job that nobody has, and for a tenant that the policy does not name."""
    desk, submission = make_desk(), node.accept("echo", "secret")

    refusals = [
        desk.ask(submission, tenant="globex"),
        desk.ask(str(uuid.uuid4())),
        desk.ask(submission, tenant="stranger"),
    ]

    assert {verdict.outcome for verdict in refusals} == {"rejected"}
    problems = [verdict.problem for verdict in refusals]
    assert all(problem == problems[0] for problem in problems)
    assert problems[0] is not None
    assert problems[0].type.endswith("/not-found")


def test_what_the_adapter_let_through_is_checked_again(node: Any, make_desk: MakeDesk) -> None:
    verdict = make_desk().ask(node.accept(), limit=10**6, stream="stdin")

    assert verdict.problem is not None
    assert sorted(error.field for error in verdict.problem.errors) == ["limit", "stream"]


def with_an_attempt(node: Any) -> str:
    """The submission of a job that has come so far."""
    job = Underway(node, node.accept())
    job.until(lambda: job.process.node.called, "an attempt")
    return job.submission


READER = """
import json, sys, time
say = lambda **answer: print(json.dumps(answer), flush=True)
say(ready=True)
for line in sys.stdin:
    {answer}
"""
FAULTS = {
    "hangs": READER.format(answer="time.sleep(1000)"),
    "dies": READER.format(answer="sys.exit(3)"),
    "talks nonsense": READER.format(answer="print('Warning: no JSON', flush=True)"),
    "does not start": "raise SystemExit(1)",
    "starts for ever": "import time; time.sleep(1000)",
    "cannot ask the cluster": READER.format(answer="say(error='ssh: no route to 10.0.0.7')"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_that_fails_costs_a_retry_and_nothing_else(
    node: Any, make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """In time, with what helps, and without a word of what is inside the node."""
    monkeypatch.setattr(logs, "_ANSWER_SECONDS", 1.0)
    submission = with_an_attempt(node)
    desk = make_desk(FAULTS[fault])

    verdict = desk.ask(submission)

    assert verdict.problem is not None
    assert verdict.problem.type.endswith("/node-failed")
    assert verdict.problem.retry
    assert "10.0.0.7" not in verdict.problem.model_dump_json()


def test_after_a_reader_that_hung_comes_another(
    node: Any, make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logs, "_ANSWER_SECONDS", 1.0)
    submission = with_an_attempt(node)
    content = base64.b64encode(b"hello").decode()
    answer = f"say(content='{content}', offset=0, size=5, is_closed=False)"
    once = f"""
    import pathlib
    hung = pathlib.Path({str(tmp_path / "hung")!r})
    if not hung.exists():
        hung.touch()
        time.sleep(1000)
    {answer}
"""
    desk = make_desk(READER.format(answer=once))

    assert desk.ask(submission).outcome == "rejected"
    assert desk.read(submission).data == "hello"


def test_requests_wait_in_bounds_and_no_longer_than_their_askers(
    node: Any, make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking one never takes time; one that was handed out again waits once."""
    monkeypatch.setattr(logs, "_ANSWER_SECONDS", 0.0)
    submission = with_an_attempt(node)
    desk = make_desk(FAULTS["hangs"])
    first = desk.command(submission)
    assert [desk.desk.take(first) for _ in range(3)] == [None, None, None]
    others = [desk.command(submission) for _ in range(99)]
    assert [desk.desk.take(each) for each in others] == [None] * 99

    full = desk.desk.take(desk.command(submission))
    for _ in range(100):
        desk.desk.step(node.connection, desk)  # type: ignore[arg-type]

    assert full is not None
    assert full.problem is not None
    assert full.problem.type.endswith("/node-failed")
    assert [each for each, _ in desk.heard] == [each.command_id for each in (first, *others)]
    assert {verdict.outcome for _, verdict in desk.heard} == {"rejected"}
