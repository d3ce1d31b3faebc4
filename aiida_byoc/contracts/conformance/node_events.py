"""What a node MUST do with events."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from aiida_byoc.contracts.conformance.musts import Musts, hold
from aiida_byoc.contracts.conformance.node_scene import NodeScene, ended
from aiida_byoc.contracts.conformance.played import Reply
from aiida_byoc.contracts.conformance.played_adapter import Event, PlayedAdapter, problem
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH
from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.lifecycle import SUCCESSORS, ExecutionState
from aiida_byoc.contracts.validation import validated

__all__ = ["EVENTS", "came_next"]

EVENTS: Musts[NodeScene] = Musts()
must = EVENTS.must

_LOOK_ON_SECONDS = 5.0
"""A node that sends a refused event again may wait before; other jobs go on meanwhile."""
DELIVERY, LIFE = "event-delivery.md", "event-execution-lifecycle.md"


@must("events.contract", f"{LIFE}#required-and-optional-fields")
def contract(scene: NodeScene) -> str:
    """Events fit the contract, are the node's own, and come in batches of 1 to 100."""
    command = scene.command()
    scene.submit(command)
    scene.until(lambda: scene.adapter.told_of(command["job_id"]), "the first event of a job")
    batches = list(scene.adapter.batches)
    for batch in batches:
        hold(1 <= len(batch) <= MAX_EVENT_BATCH, f"a batch holds {len(batch)} events")
        for event in batch:
            validated(ExecutionEvent, event)
            hold(
                event["source"] == f"/nodes/{scene.settings.node_id}",
                f"the source is {event['source']}",
            )
    kinds = {
        each.headers.get("Content-Type", "").partition(";")[0]
        for each in scene.adapter.asked("/events")
    }
    hold(
        kinds <= {"application/cloudevents-batch+json", "application/json"},
        f"the media types are {kinds}",
    )
    return f"{sum(map(len, batches))} events in {len(batches)} batches"


@must("events.contiguous", f"{LIFE}#required-and-optional-fields")
def contiguous(scene: NodeScene) -> str:
    """A job's seq is contiguous from 1, which is accepted, and its states follow the life cycle."""
    command, acceptance = _ended_job(scene)
    story = scene.until(lambda: ended(scene.story(command["job_id"])), "the end of the job")
    seqs = [event["data"]["seq"] for event in story]
    states = [ExecutionState(event["data"]["state"]) for event in story]
    hold(seqs == list(range(1, len(story) + 1)), f"seq is {seqs}")
    hold(states[0] == "accepted", f"seq 1 is {states[0]}")
    for state, following in itertools.pairwise(states):
        hold(following in SUCCESSORS[state], f"{following} follows {state}")
    names = {event["data"]["submission_id"] for event in story}
    hold(names == {acceptance["submission_id"]}, "the submission is not that of the acceptance")
    return " → ".join(states)


@must("events.ids", f"{LIFE}#idempotency-key")
def ids(scene: NodeScene) -> str:
    """No two events have the same id."""
    found: dict[str, str] = {}
    for event in (each for batch in list(scene.adapter.batches) for each in batch):
        fact = (
            f"{event['data']['submission_id']}:{event['data'].get('epoch')}:{event['data']['seq']}"
        )
        hold(found.setdefault(event["id"], fact) == fact, f"{event['id']} names two events")
    return f"{len(found)} ids"


@must("events.same-again", f"{LIFE}#idempotency-key")
def same_again(scene: NodeScene) -> str:
    """An event that was not acknowledged comes again, with the same id and content."""
    command = scene.command()
    scene.adapter.rules[command["job_id"]] = _once(problem("product-unavailable"))
    scene.submit(command)
    told = scene.until(lambda: _deliveries(scene, command["job_id"], 2), "the event to come again")
    hold(
        told[0][0] == told[1][0],
        "the repetition differs: " + ", ".join(_differs(told[0][0], told[1][0])),
    )
    return f"{told[0][0]['id']} twice"


@must("events.partial", f"{DELIVERY}#idempotency-key")
def partial(scene: NodeScene) -> str:
    """After an acknowledgement the node goes on where the product is: nothing is left out, nothing comes again."""
    job_id, told = _told_together(scene, lambda batch, job: _of(batch, job, upto=1))
    seqs = [event["data"]["seq"] for event in told[1]]
    hold(seqs[0] == 2, f"{job_id}: 1 was acknowledged, and {seqs} came next")
    return "1 acknowledged, 2 came next"


@must("events.rewind", f"{DELIVERY}#ordering-and-retry-rule")
def rewind(scene: NodeScene) -> str:
    """From missing_from on events are sent again."""

    def lacking(batch: list[Event], job_id: str) -> Reply:
        submission = next(
            event["data"]["submission_id"] for event in batch if event["subject"] == job_id
        )
        return PlayedAdapter.acknowledge(batch, missing_from={submission: 1})

    _, told = _told_together(scene, lacking)
    seqs = [event["data"]["seq"] for event in told[1]]
    hold(seqs[0] == 1, f"1 is missing, and {seqs} came next")
    return f"1 was missing, and {seqs} came"


@must("events.nonsense", f"{DELIVERY}#ordering-and-retry-rule")
def nonsense(scene: NodeScene) -> str:
    """An acknowledgement of a seq that was never reached, or of a job that was not sent, changes nothing."""

    def beyond(batch: list[Event], job_id: str) -> Reply:
        wanted = {
            event["data"]["submission_id"]: 1000 for event in batch if event["subject"] == job_id
        }
        return Reply(200, {"next_seq": {**wanted, str(uuid4()): 7}, "quarantined": []})

    _, told = _told_together(scene, beyond)
    hold(told[1][: len(told[0])] == told[0], "not the same events came next")
    return "the same events came again"


@must("events.quarantined-alone", f"{DELIVERY}#error-semantics")
def quarantined_alone(scene: NodeScene) -> str:
    """An event that is quarantined stops its own job: it does not come again, and other jobs go on."""

    def refuse(batch: list[Event]) -> Reply:
        named = {"code": "seq_conflict", "message": "No."}
        bad = [
            {"submission_id": event["data"]["submission_id"], "seq": event["data"]["seq"], **named}
            for event in batch
            if event["subject"] == command["job_id"]
        ]
        others = [event for event in batch if event["subject"] != command["job_id"]]
        return PlayedAdapter.acknowledge(others, quarantined=bad[:1])

    command = scene.command()
    scene.adapter.rules[command["job_id"]] = refuse
    scene.submit(command)
    scene.until(lambda: scene.adapter.told_of(command["job_id"]), "the event to come")
    scene.cancel(command["job_id"])
    seen = time.monotonic()
    for others in itertools.count(1):
        other, _ = _ended_job(scene)
        scene.until(lambda: ended(scene.story(other["job_id"])), "the other job's events")  # noqa: B023
        if others > 1 and time.monotonic() - seen > _LOOK_ON_SECONDS:
            break
    came = len(scene.adapter.told_of(command["job_id"]))
    # Where it comes again, its rule would speak for the jobs that come with it.
    del scene.adapter.rules[command["job_id"]]
    hold(came == 1, f"the job's events came {came} times")
    return f"stopped, and {others} other jobs went on"


@must("events.halved", f"{DELIVERY}#ordering-and-retry-rule")
def halved(scene: NodeScene) -> str:
    """A batch that is refused whole is made smaller until the culprit stands alone."""
    whole: list[list[Event]] = []

    def refuse(batch: list[Event], _: str) -> Reply:
        whole.append(batch)
        return problem("payload-too-large")

    _told_together(scene, refuse)
    batches = list(scene.adapter.batches)
    at = next(place for place, batch in enumerate(batches) if batch is whole[0])
    following = came_next(whole[0], batches[at + 1 :])
    sizes = f"{len(whole[0])} events were refused, and {following} of them came next"
    hold(following < len(whole[0]), sizes)
    return sizes


def came_next(refused: list[Event], batches: Iterable[list[Event]]) -> int:
    """How many events of a refused batch the first of the batches holds that has any of them.

    The smaller beginning may be another job's, and its success lets this job's come whole, with newer ones.
    """

    def of(batch: list[Event]) -> set[tuple[str, int]]:
        return {(event["data"]["submission_id"], event["data"]["seq"]) for event in batch}

    return next(len(shared) for batch in batches if (shared := of(batch) & of(refused)))


def _ended_job(scene: NodeScene) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job that was submitted and cancelled."""
    command = scene.command()
    acceptance: dict[str, Any] = scene.submit(command)["acceptance"]
    scene.cancel(command["job_id"])
    return command, acceptance


def _told_together(scene: NodeScene, answer: Any) -> tuple[str, list[list[Event]]]:
    """Have two events or more of a job told at once, answer them so, and return what was told then and next."""
    command = scene.command()
    job_id: str = command["job_id"]
    together: list[int] = []

    def decide(batch: list[Event]) -> Reply | None:
        mine = [event for event in batch if event["subject"] == job_id]
        if together:
            return None
        if len(mine) < 2:
            return problem("product-unavailable")
        together.append(len(scene.adapter.told_of(job_id)) - 1)
        return answer(batch, job_id)  # type: ignore[no-any-return]

    scene.adapter.rules[job_id] = decide
    scene.submit(command)
    scene.cancel(job_id)
    scene.until(
        lambda: together and _deliveries(scene, job_id, together[0] + 2),
        "the job's events to come again",
    )
    return job_id, scene.adapter.told_of(job_id)[together[0] :]


def _of(batch: list[Event], job_id: str, *, upto: int) -> Reply:
    """Acknowledge of the job only so far, and of others all."""
    return PlayedAdapter.acknowledge(
        [event for event in batch if event["subject"] != job_id or event["data"]["seq"] <= upto]
    )


def _deliveries(scene: NodeScene, job_id: str, count: int) -> list[list[Event]]:
    told = scene.adapter.told_of(job_id)
    return told if len(told) >= count else []


def _once(reply: Reply) -> Any:
    replies = [reply]
    return lambda _: replies.pop() if replies else None


def _differs(one: Event, other: Event) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
