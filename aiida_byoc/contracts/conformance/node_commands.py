"""What a node MUST do with commands."""

from __future__ import annotations

import json
from uuid import uuid4

from aiida_byoc.contracts.conformance.musts import Musts, NotTested, hold
from aiida_byoc.contracts.conformance.node_scene import NodeScene, ended, rejected
from aiida_byoc.contracts.conformance.played_adapter import problem
from aiida_byoc.contracts.delivery import PollRequest
from aiida_byoc.contracts.validation import validated

__all__ = ["COMMANDS"]

COMMANDS: Musts[NodeScene] = Musts()
must = COMMANDS.must

SUBMIT, CANCEL, DELIVERY = "command-submit-job.md", "command-cancel-job.md", "command-delivery.md"


@must("poll.contract", f"{DELIVERY}#required-and-optional-fields")
def poll(scene: NodeScene) -> str:
    """The node polls, with a body that fits."""
    polls = scene.until(lambda: scene.adapter.asked("/commands/poll"), "a poll")
    asked = polls[0].json if polls[0].content else {}
    validated(PollRequest, asked)
    return json.dumps(asked)


@must("submit.accepted", f"{DELIVERY}#required-and-optional-fields")
def accepted(scene: NodeScene) -> str:
    """A submission that the policy allows is accepted, for this job and by this node."""
    command = scene.command()
    verdict = scene.submit(command)
    hold(
        verdict["outcome"] == "accepted",
        f"{verdict['outcome']} {verdict.get('problem', {}).get('detail', '')}",
    )
    acceptance = verdict["acceptance"]
    named = (acceptance["job_id"], acceptance["node_id"])
    hold(named == (command["job_id"], scene.settings.node_id), f"it is the acceptance of {named}")
    return f"submission {acceptance['submission_id']}"


@must("submit.replayed", f"{SUBMIT}#idempotency-key")
def replayed(scene: NodeScene) -> str:
    """The same key and intent are replayed with the same acceptance."""
    command, key = scene.command(), str(uuid4())
    first, again = (scene.submit(command, key=key) for _ in range(2))
    hold(again["outcome"] == "replayed", f"the second verdict is {again['outcome']}")
    hold(again["acceptance"] == first["acceptance"], "the second acceptance is another one")
    return "replayed"


@must("submit.committed-first", f"{DELIVERY}#ordering-and-retry-rule")
def committed_first(scene: NodeScene) -> str:
    """The verdict is sent after the commit: one that the adapter could not take stands when the command comes again."""
    command, key = scene.command(), str(uuid4())
    scene.adapter.verdict_answers.append(problem("product-unavailable"))
    first = scene.submit(command, key=key)
    again = scene.submit(command, key=key)
    hold(
        again["outcome"] == "replayed",
        f"the verdict was lost, and the next one is {again['outcome']}",
    )
    hold(again["acceptance"] == first["acceptance"], "the second acceptance is another one")
    return "replayed after a lost verdict"


@must("submit.key-reused", f"{SUBMIT}#idempotency-key")
def key_reused(scene: NodeScene) -> str:
    """The same key with another intent is rejected as idempotency-key-reused."""
    key = str(uuid4())
    scene.submit(scene.command(), key=key)
    return rejected(scene.submit(scene.command(), key=key), "idempotency-key-reused")


@must("submit.job-id-conflict", f"{SUBMIT}#idempotency-key")
def job_id_conflict(scene: NodeScene) -> str:
    """Another key with a job_id that was used is rejected as job-id-conflict."""
    command = scene.command()
    scene.submit(command)
    return rejected(scene.submit(command), "job-id-conflict")


@must("submit.refusal-stores-nothing", f"{SUBMIT}#idempotency-key")
def refusal_stores_nothing(scene: NodeScene) -> str:
    """What does not fit is rejected by the node too; the same key may then be used with a corrected command."""
    command, key = scene.command(), str(uuid4())
    shape = {**command["resource_shape"], "cpu": 0}
    rejected(scene.submit({**command, "resource_shape": shape}, key=key), "validation-failed")
    rejected(
        scene.submit({**command, "deadline": "2020-01-01T00:00:00Z"}, key=key), "command-expired"
    )
    outcome = scene.submit(command, key=key)["outcome"]
    hold(outcome == "accepted", f"the corrected command is {outcome}")
    return "rejected twice, then accepted"


@must("submit.addressed", f"{DELIVERY}#tenant-and-auth-boundary")
def addressed(scene: NodeScene) -> str:
    """The node trusts nothing: a body that contradicts its envelope is rejected."""
    command = scene.command()
    rejected(scene.submit(command, tenant_id=f"tenant-{uuid4().hex[:8]}"), "tenant-mismatch")
    rejected(scene.submit({**command, "management_node_id": "another-node"}), "node-mismatch")
    return rejected(scene.submit(command, job_id=f"kit-{uuid4()}"), "validation-failed")


@must("submit.served-tenants", f"{SUBMIT}#error-semantics")
def served_tenants(scene: NodeScene) -> str:
    """For a tenant that the node's policy does not name there is nothing: not-found."""
    tenant = f"tenant-{uuid4().hex[:8]}"
    return rejected(scene.submit(scene.command(tenant_id=tenant), tenant_id=tenant), "not-found")


@must("cancel.first-wins", f"{CANCEL}#idempotency-key")
def first_wins(scene: NodeScene) -> str:
    """A cancel that arrives before its submit wins."""
    command = scene.command()
    status = scene.cancel(command["job_id"])["cancellation"]["status"]
    hold(status == "cancelled", f"the cancel is {status}")
    return rejected(scene.submit(command), "job-cancelled")


@must("cancel.ends", f"{CANCEL}#ordering-and-retry-rule")
def ends(scene: NodeScene) -> str:
    """A cancel is recorded once, and the job's end is told as an event."""
    command = scene.command()
    scene.submit(command)
    first, again = (scene.cancel(command["job_id"])["cancellation"] for _ in range(2))
    hold(again["requested_at"] == first["requested_at"], "the second cancel has another time")
    story = scene.until(lambda: ended(scene.story(command["job_id"])), "the end of the job")
    return f"{first['status']}, then the event {story[-1]['data']['state']}"


@must("inspect.live", f"{DELIVERY}#required-and-optional-fields")
def live(scene: NodeScene) -> str:
    """The live state of a job is answered, as its newest event has it."""
    command = scene.command()
    acceptance = scene.submit(command)["acceptance"]
    verdict = scene.inspect(command["job_id"])
    hold(verdict["outcome"] == "answered", f"the outcome is {verdict['outcome']}")
    state = verdict["job"]["job"]
    hold(state["submission_id"] == acceptance["submission_id"], "it is another submission")
    return f"{state['state']}, seq {state['seq']}"


@must("inspect.alike", "errors.md#tenant-and-auth-boundary")
def alike(scene: NodeScene) -> str:
    """A job of another tenant and one that does not exist are the same not-found."""
    if scene.settings.other_tenant_id is None:
        raise NotTested("give `other_tenant_id`: a further tenant that the policy names")
    command = scene.command()
    scene.submit(command)
    verdicts = [
        scene.inspect(command["job_id"], scene.settings.other_tenant_id),
        scene.inspect(f"kit-{uuid4()}"),
    ]
    for verdict in verdicts:
        rejected(verdict, "not-found")
    hold(verdicts[0] == verdicts[1], "the two differ")
    return "one not-found"


@must("verdict.dropped", f"{DELIVERY}#ordering-and-retry-rule")
def dropped(scene: NodeScene) -> str:
    """A verdict that nobody waits for (404) is dropped, and the node goes on."""
    scene.adapter.verdict_answers.append(problem("not-found"))
    scene.submit(scene.command())
    outcome = scene.submit(scene.command())["outcome"]
    hold(outcome == "accepted", f"the next submission is {outcome}")
    return "went on"
