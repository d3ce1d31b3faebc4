"""What an adapter MUST do between a node and the product, which the kit plays."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from aiida_byoc.contracts.conformance.adapter_scene import AdapterScene
from aiida_byoc.contracts.conformance.musts import Musts, hold
from aiida_byoc.contracts.conformance.wire import expect, refused
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.contracts.lifecycle import PRODUCT_STATE, ExecutionState
from aiida_byoc.contracts.projection import MAX_PROJECTION_BATCH, ProjectionUpdate
from aiida_byoc.contracts.validation import validated

__all__ = ["EVENTS"]

EVENTS: Musts[AdapterScene] = Musts()
must = EVENTS.must

DELIVERY, PROJECTION = "event-delivery.md", "projection-update.md"
_MOMENT = 1.0


def _job() -> str:
    return str(uuid4())


@must("events.acknowledged", f"{DELIVERY}#idempotency-key")
def acknowledged(scene: AdapterScene) -> str:
    """A batch is acknowledged per job and cumulatively, and tells from where the product lacks something."""
    one, other = _job(), _job()
    answer = scene.deliver(scene.event(one, 1), scene.event(other, 4), scene.event(one, 2))
    told = expect(answer, 200)
    validated(Acknowledgement, told)
    hold(
        told["next_seq"] == {one: 3, other: 5},
        f"next_seq is {sorted(told['next_seq'].values())}, not 3 and 5",
    )
    hold(
        scene.product.stored(one) == [1, 2],
        f"the product has {scene.product.stored(one)} of the job",
    )
    return answer.told


@must("events.missing", f"{DELIVERY}#ordering-and-retry-rule")
def missing(scene: AdapterScene) -> str:
    """What the product lacks is passed on to the node as missing_from."""
    job = _job()
    told = expect(scene.deliver(scene.event(job, 4)), 200)
    hold(told.get("missing_from") == {job: 1}, f"missing_from is {told.get('missing_from')}")
    for seq in (1, 2, 3):
        told = expect(scene.deliver(scene.event(job, seq)), 200)
    hold("missing_from" not in told, "missing_from is told when nothing is missing")
    return "missing_from 1, then none"


@must("events.stored-first", f"{DELIVERY}#purpose")
def stored_first(scene: AdapterScene) -> str:
    """An event is acknowledged only after the product has answered for it."""
    product, job = scene.product, _job()
    product.go_on.clear()
    try:
        asked = scene.aside(scene.deliver, scene.event(job, 1))
        scene.until(lambda: product.stored(job), "the product to get the event")
        time.sleep(_MOMENT)  # an answer must not come: there is nothing to wait for
        hold(not asked.done(), "the node was answered before the product had answered")
    finally:
        product.go_on.set()
    hold(expect(scene.in_time(asked), 200)["next_seq"] == {job: 2}, "the event is not acknowledged")
    return f"no answer in the {_MOMENT} s before the product's"


@must("events.unavailable", f"{DELIVERY}#ordering-and-retry-rule")
def unavailable(scene: AdapterScene) -> str:
    """While the product fails nothing is acknowledged: 503 product-unavailable; later the same batch is taken."""
    product, job = scene.product, _job()
    product.faults.extend(["503"] * 8)
    try:
        told = refused(scene.deliver(scene.event(job, 1)), "product-unavailable")
    finally:
        product.faults.clear()
    hold(
        expect(scene.deliver(scene.event(job, 1)), 200)["next_seq"] == {job: 2},
        "it is not acknowledged later",
    )
    return told


@must("events.lost-reply", f"{PROJECTION}#ordering-and-retry-rule")
def lost_reply(scene: AdapterScene) -> str:
    """When the product's answer is lost the call is repeated as it was, by adapter or node, and stored once."""
    product, job = scene.product, _job()
    product.faults.append("lost-reply")
    answer = scene.deliver(scene.event(job, 1))
    if answer.status != 200:
        refused(answer, "product-unavailable")
        answer = scene.deliver(scene.event(job, 1))
    hold(expect(answer, 200)["next_seq"] == {job: 2}, "it is not acknowledged")
    calls = [call for call in product.calls if call[0]["projection_id"] == f"{job}:1"]
    hold(all(call == calls[0] for call in calls), "the repetition differs")
    hold(product.stored(job) == [1], "it is stored twice")
    return f"called {len(calls)} times, stored once"


@must("events.repeated", f"{DELIVERY}#idempotency-key")
def repeated(scene: AdapterScene) -> str:
    """An event that is sent again is acknowledged again."""
    job = _job()
    answers = [scene.deliver(scene.event(job, 1)) for _ in range(2)]
    hold(
        expect(answers[0], 200) == expect(answers[1], 200),
        "the second acknowledgement is another one",
    )
    hold(scene.product.stored(job) == [1], "it is stored twice")
    return answers[1].told


@must("events.refused-alone", f"{DELIVERY}#error-semantics")
def refused_alone(scene: AdapterScene) -> str:
    """What the product refuses is quarantined with its code; its job stops there, other jobs go on."""
    product, job, other = scene.product, _job(), _job()
    product.projections.rejected[f"{job}:2"] = "seq_conflict"
    events = [scene.event(each, seq) for each in (job, other) for seq in (1, 2, 3)]
    told = expect(scene.deliver(*events), 200)
    hold(
        told["next_seq"] == {job: 2, other: 4},
        f"next_seq is {sorted(told['next_seq'].values())}, not 2 and 4",
    )
    found = [
        (each.get("submission_id"), each.get("seq"), each["code"]) for each in told["quarantined"]
    ]
    hold(found == [(job, 2, "seq_conflict")], f"quarantined is {[each[1:] for each in found]}")
    return "seq_conflict told, the other job went on"


@must("events.poison", f"{PROJECTION}#ordering-and-retry-rule")
def poison(scene: AdapterScene) -> str:
    """A call that the product refuses whole is halved until the culprit stands alone; the rest is applied."""
    product, job, others = scene.product, _job(), [_job() for _ in range(5)]
    product.poison.add(f"{job}:1")
    told = expect(
        scene.deliver(*(scene.event(each, 1) for each in [*others[:3], job, *others[3:]])), 200
    )
    hold(
        told["next_seq"] == dict.fromkeys(others, 2),
        f"{len(told['next_seq'])} of 5 other jobs are acknowledged",
    )
    found = [(each.get("submission_id"), each["code"]) for each in told["quarantined"]]
    hold(found == [(job, "projection-refused")], f"quarantined is {[code for _, code in found]}")
    return "5 of 5 other jobs went on"


@must("events.contract", f"{DELIVERY}#error-semantics")
def contract(scene: AdapterScene) -> str:
    """An event that does not fit is quarantined as validation-failed; other jobs go on."""
    job, other = _job(), _job()
    bad = scene.event(job, 1, attempt="1")
    told = expect(scene.deliver(bad, scene.event(other, 1)), 200)
    hold(told["next_seq"] == {other: 2}, "the other job is not acknowledged alone")
    codes = [each["code"] for each in told["quarantined"]]
    hold(codes == ["validation-failed"], f"quarantined is {codes}")
    hold(scene.product.stored(job) == [], "the product has it")
    return "validation-failed, the other job went on"


@must("events.own", f"{DELIVERY}#tenant-and-auth-boundary")
def own(scene: AdapterScene) -> str:
    """A node tells only of itself and of tenants that it serves; all else is quarantined as forbidden."""
    job, stranger, mine = _job(), _job(), _job()
    source = {**scene.event(job, 1), "source": "/nodes/another-node"}
    tenant = scene.event(stranger, 1, tenant_id=f"tenant-{uuid4().hex[:8]}")
    told = expect(scene.deliver(source, tenant, scene.event(mine, 1)), 200)
    codes = [each["code"] for each in told["quarantined"]]
    hold(codes == ["forbidden", "forbidden"], f"quarantined is {codes}")
    hold(told["next_seq"] == {mine: 2}, "its own event is not acknowledged alone")
    hold(
        not scene.product.stored(job) + scene.product.stored(stranger),
        "the product has one of them",
    )
    return "two forbidden, its own went on"


@must("events.gap", f"{DELIVERY}#ordering-and-retry-rule")
def gap(scene: AdapterScene) -> str:
    """At a gap within a batch the job stops; what follows waits."""
    job, other = _job(), _job()
    events = [scene.event(job, 1), scene.event(job, 3), scene.event(other, 1)]
    told = expect(scene.deliver(*events), 200)
    hold(
        told["next_seq"] == {job: 2, other: 2},
        f"next_seq is {sorted(told['next_seq'].values())}, not 2 and 2",
    )
    hold(
        scene.product.stored(job) == [1], f"the product has {scene.product.stored(job)} of the job"
    )
    return "acknowledged up to the gap"


@must("events.batch", f"{DELIVERY}#producer-and-consumer")
def batch(scene: AdapterScene) -> str:
    """What is no array of 1 to 100 is 422, and nothing of it is looked at."""
    job = _job()
    refused(scene.as_node("/events", []), "validation-failed")
    refused(scene.as_node("/events", {}), "validation-failed")
    told = refused(
        scene.deliver(*(scene.event(job, seq) for seq in range(1, 102))), "validation-failed"
    )
    hold(scene.product.stored(job) == [], "the product has some of 101 events")
    return told


@must("events.epoch", f"{PROJECTION}#error-semantics")
def epoch(scene: AdapterScene) -> str:
    """An epoch that the product has not accepted is 409 epoch-mismatch."""
    known, unknown = uuid4().hex[:16], uuid4().hex[:16]
    scene.product.projections.accept(scene.settings.node_id, known)
    return refused(scene.deliver(scene.event(_job(), 1, epoch=unknown)), "epoch-mismatch")


@must("projection.pure", f"{PROJECTION}#required-and-optional-fields")
def pure(scene: AdapterScene) -> str:
    """Each event becomes the update that its page describes, field by field, and nothing else."""
    proof: dict[str, Any] = {
        "held": {"reason": "paused"},
        "failed": {"error": {"code": "oom", "message": "no", "retryable": True}},
    }
    proof["succeeded"] = {"result": {"exit_code": 0, "outputs": []}}
    for state in ExecutionState:
        job = _job()
        event = scene.event(job, 1, state=str(state), **proof.get(state, {}))
        expect(scene.deliver(event), 200)
        [told] = [call[0] for call in scene.product.calls if call[0]["projection_id"] == f"{job}:1"]
        data = dict(event["data"])
        submission, reason = data.pop("submission_id"), data.pop("reason", None)
        message = reason or data.get("error", {}).get("message")
        expected = {
            **data,
            "schema_version": "1",
            "projection_id": f"{submission}:1",
            "node_id": scene.settings.node_id,
            "state": str(PRODUCT_STATE[state]),
            "execution_state": str(state),
            **({"message": message} if message else {}),
        }
        differs = sorted(
            name for name in expected.keys() | told.keys() if expected.get(name) != told.get(name)
        )
        hold(not differs, f"{state}: {', '.join(differs)} differ")
    return f"{len(ExecutionState)} states"


@must("projection.calls", f"{PROJECTION}#producer-and-consumer")
def calls(scene: AdapterScene) -> str:
    """Calls of applyProjections hold 1 to 100 updates that fit the contract."""
    jobs = [_job() for _ in range(50)]
    expect(
        scene.deliver(*(scene.event(job, seq) for job in jobs for seq in (1, 2))),
        200,
    )
    sizes = [len(call) for call in scene.product.calls]
    hold(max(sizes) <= MAX_PROJECTION_BATCH, f"a call held {max(sizes)} updates")
    for update in (each for call in scene.product.calls for each in call):
        validated(ProjectionUpdate, update)
    return f"{len(sizes)} calls of at most {max(sizes)}"


@must("heartbeat.passed-on", "node-heartbeat.md#error-semantics")
def heartbeat(scene: AdapterScene) -> str:
    """A heartbeat is 200 with received_at and reaches the product; that the product fails is no error of the node."""
    report = {"sent_at": "2026-02-15T10:00:00Z", "versions": {"conformance": "1"}}
    answer = scene.as_node("/heartbeat", report)
    received = expect(answer, 200)["received_at"]
    scene.until(lambda: scene.product.heartbeats, "the product to get the heartbeat")
    last = scene.product.heartbeats[-1]
    hold(
        (last["node_id"], last["received_at"]) == (scene.settings.node_id, received),
        "the product got another one",
    )
    scene.product.faults.append("any 503")
    try:
        return f"{answer.told}, and {expect(scene.as_node('/heartbeat', report), 200) and 200} while the product fails"
    finally:
        scene.product.faults.clear()
