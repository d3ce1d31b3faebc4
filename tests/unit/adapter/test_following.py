"""What a follower is told and asks next: everything once, in order, across attempts and outages, and then the end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapter.following import Doors, Follower
from adapter.sse import Event
from aiida_byoc.contracts import LogChunk, LogRequest
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated


def chunk(data: str = "", **changes: Any) -> LogChunk:
    """A chunk of a running job's first attempt."""
    offset = changes.get("offset", 0)
    values = {
        "node_id": "n1",
        "tenant_id": "acme",
        "job_id": "job-1",
        "state": "running",
        "latest_attempt": 1,
        "attempt": 1,
        "stream": "stdout",
        "offset": offset,
        "next_offset": offset + len(data.encode()),
        "size": offset + len(data.encode()),
        "encoding": "utf-8",
        "data": data,
        "complete": False,
    }
    return validated(LogChunk, {**values, **changes})


def told(events: list[Event | None]) -> list[tuple[str, str] | None]:
    """Kind and text of each."""
    return [event and (event.kind, event.data.get("data", "")) for event in events]


@pytest.fixture
def follower() -> Follower:
    return Follower(LogRequest())


def test_what_is_written_is_told_and_what_follows_is_asked_for(follower):
    assert told(follower.hear(chunk("one"), 0)) == [("log", "one")]
    assert (follower.request.attempt, follower.request.offset) == (1, 3)
    assert told(follower.hear(chunk("", offset=3), 1)) == []
    [event] = follower.hear(chunk("two", offset=3), 2)

    assert event is not None
    assert (event.kind, event.id) == ("log", "1:6")


def test_the_first_chunk_is_told_also_when_it_is_empty(follower):
    """A job that has not started: its state is all there is to say."""
    assert told(follower.hear(chunk(state="accepted"), 0)) == [("log", "")]
    assert told(follower.hear(chunk(state="accepted"), 1)) == []
    assert told(follower.hear(chunk(state="queued"), 2)) == [("log", "")]


def test_the_end_comes_once_everything_was_sent(follower):
    """The job may have ended long before its log was read to the end."""
    long = chunk("one", state="succeeded", size=6)
    assert told(follower.hear(long, 0)) == [("log", "one")]
    assert follower.pause == 0
    assert not follower.is_done
    last = chunk("two", state="succeeded", offset=3, complete=True)

    assert told(follower.hear(last, 1)) == [("log", "two"), ("end", "")]
    assert follower.is_done


def test_a_complete_log_of_a_job_that_goes_on_is_not_the_end(follower):
    """The attempt has ended; its job may get another, or is about to end."""
    assert told(follower.hear(chunk("one", complete=True), 0)) == [("log", "one")]

    assert not follower.is_done


def test_the_log_of_a_task_ends_with_the_task():
    """Its job goes on for long, with other tasks; but what another attempt has made of it by then is told."""
    follower = Follower(LogRequest(task=7))
    earlier = chunk("one", task=7, complete=True, latest_attempt=2)
    assert told(follower.hear(earlier, 0)) == [("log", "one")]
    assert (follower.request.attempt, follower.request.task) == (2, 7)
    last = chunk("two", task=7, attempt=2, latest_attempt=2, complete=True)

    assert told(follower.hear(last, 1)) == [("attempt", "two"), ("end", "")]
    assert follower.is_done


def test_the_next_attempt_is_announced_and_read_from_its_beginning(follower):
    follower.hear(chunk("one", complete=True), 0)
    assert told(follower.hear(chunk(offset=3, complete=True, latest_attempt=2), 1)) == []
    assert (follower.request.attempt, follower.request.offset) == (2, 0)
    assert follower.pause == 0
    second = chunk("uno", attempt=2, latest_attempt=2)

    [event] = follower.hear(second, 2)

    assert event is not None
    assert (event.kind, event.id, event.data["data"]) == ("attempt", "2:3", "uno")


def test_an_attempt_that_is_not_there_yet_is_waited_for():
    follower = Follower(LogRequest(attempt=2))
    assert told(follower.hear(chunk(attempt=2), 0)) == [("log", "")]
    assert follower.request.attempt == 2
    assert not follower.is_done
    ended = chunk(attempt=2, state="succeeded", complete=True)

    assert told(follower.hear(ended, 1)) == [("log", ""), ("end", "")]


def test_a_node_that_is_away_is_told_once_and_asked_on(follower):
    away = ProblemError("node-unreachable", retry_after=7)
    follower.hear(chunk("one"), 0)

    [event] = follower.hear(away, 1)
    assert event is not None
    assert (event.kind, event.data["status"], event.id) == ("problem", 503, None)
    assert follower.pause == 7
    assert follower.hear(away, 2) == []
    assert not follower.is_done
    assert told(follower.hear(chunk("two", offset=3), 3)) == [("log", "two")]
    assert [event.kind for event in follower.hear(away, 4) if event] == ["problem"]


def test_what_no_retry_cures_ends_the_stream(follower):
    follower.hear(ProblemError("node-unreachable"), 0)

    [event] = follower.hear(ProblemError("not-found"), 1)

    assert event is not None
    assert event.data["status"] == 404
    assert follower.is_done


def test_looks_become_seldom_while_nothing_is_written_and_a_silence_is_kept_alive(follower):
    follower.hear(chunk("one"), 0)
    pauses = []
    for now in range(1, 15):
        assert follower.hear(chunk(offset=3), now) == []
        pauses.append(follower.pause)

    assert follower.hear(chunk(offset=3), 15) == [None]
    assert follower.hear(chunk(offset=3), 16) == []
    assert pauses == sorted(pauses)
    assert pauses[-1] == 3
    follower.hear(chunk("two", offset=3), 17)
    assert follower.pause < 1


def test_an_event_is_one_line_of_data_whatever_is_in_the_log():
    """No log writes events of its own."""
    event = Event("log", {"data": "\r\n\ndata: forged\n\nevent: end\u2028é"}, "1:2")

    lines = event.wire().decode().split("\n")

    assert lines[0] == "event: log"
    assert json.loads(lines[1].removeprefix("data: ")) == event.data
    assert lines[2:] == ["id: 1:2", "", ""]
    assert "\r" not in event.wire().decode()


def test_a_tenant_has_so_many_doors_and_no_other_is_closed_by_them():
    doors = Doors(2)
    leave = [doors.enter("acme"), doors.enter("acme")]
    with pytest.raises(ProblemError, match="too-many-requests") as refused:
        doors.enter("acme")
    doors.enter("globex")

    assert refused.value.retry_after
    leave.pop()()
    doors.enter("acme")
