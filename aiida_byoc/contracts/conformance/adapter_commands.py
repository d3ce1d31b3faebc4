"""What an adapter MUST do between clients and a node."""

from __future__ import annotations

import time
from uuid import uuid4

from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.conformance.adapter_scene import AdapterScene
from aiida_byoc.contracts.conformance.musts import Musts, hold
from aiida_byoc.contracts.conformance.played_node import rejection
from aiida_byoc.contracts.conformance.wire import expect, refused
from aiida_byoc.contracts.delivery import Command, JobAcceptance, JobCancellation, JobView
from aiida_byoc.contracts.validation import validated

__all__ = ["ABSENT", "COMMANDS"]

ABSENT: Musts[AdapterScene] = Musts()
"""Before the node is there."""
COMMANDS: Musts[AdapterScene] = Musts()
must = COMMANDS.must

SUBMIT, CANCEL, DELIVERY = "command-submit-job.md", "command-cancel-job.md", "command-delivery.md"
_MOMENT = 0.5
"""Long enough, in seconds, for an answer that should not come yet."""


@ABSENT.must("submit.unreachable", f"{DELIVERY}#ordering-and-retry-rule")
def unreachable(scene: AdapterScene) -> str:
    """While the node is not connected a submission is 503 node-unreachable, and nothing is kept of it."""
    command = scene.command()
    told = refused(scene.submit(command), "node-unreachable")
    scene.connect()
    got = scene.node.got(command["job_id"])
    hold(got == [], f"{told}, but the node got the command once it was there")
    return told


@must("submit.accepted", f"{SUBMIT}#required-and-optional-fields")
def accepted(scene: AdapterScene) -> str:
    """A submission that the node accepted is 202 with the node's acceptance and a Location."""
    command = scene.command()
    answer = scene.submit(command)
    validated(JobAcceptance, expect(answer, 202))
    _, _, acceptance = scene.node.jobs[scene.settings.tenant_id, command["job_id"]]
    hold(answer.json == acceptance, f"{answer.told}: the body is not the node's acceptance")
    location = f"/v1/nodes/{scene.settings.node_id}/jobs/{command['job_id']}"
    said = answer.headers.get("Location", "")
    hold(said.endswith(location), f"Location is {said!r}, not {location}")
    return answer.told


@must("submit.command", f"{DELIVERY}#required-and-optional-fields")
def delivered(scene: AdapterScene) -> str:
    """The node gets the command with its key, for the tenant of the credential, and with the intent that was sent."""
    command, key = scene.command(), str(uuid4())
    scene.submit(command, key=key)
    [got] = scene.node.got(command["job_id"])
    validated(Command, got)
    hold(got["operation"] == "submit", f"the operation is {got['operation']}")
    hold(got.get("idempotency_key") == key, "the key is another one")
    hold(got["tenant_id"] == scene.settings.tenant_id, "the tenant is not that of the credential")
    sent, arrived = (validated(SubmitJobCommand, body) for body in (command, got["body"]))
    hold(arrived == sent, "the body is another one")
    return f"{got['operation']} of {got['job_id']}"


@must("submit.verdict-first", f"{SUBMIT}#purpose")
def verdict_first(scene: AdapterScene) -> str:
    """202 is answered only after the node's verdict."""
    node, command = scene.node, scene.command()
    node.deciding.clear()
    try:
        asked = scene.aside(scene.submit, command)
        scene.until(lambda: node.got(command["job_id"]), "the node to get the command")
        time.sleep(_MOMENT)  # an answer must not come: there is nothing to wait for
        hold(not asked.done(), "the client was answered before the node had decided")
    finally:
        node.deciding.set()
    expect(scene.in_time(asked), 202)
    return f"no answer in the {_MOMENT} s before the verdict"


@must("submit.replayed", f"{SUBMIT}#idempotency-key")
def replayed(scene: AdapterScene) -> str:
    """The same key and intent get the same 202 again, with Idempotency-Replayed: true, and only then."""
    command, key = scene.command(), str(uuid4())
    first, again = (scene.submit(command, key=key) for _ in range(2))
    expect(first, 202)
    hold("Idempotency-Replayed" not in first.headers, "the first answer says that it is a replay")
    hold(expect(again, 202) == first.json, "the replay has another body")
    said = again.headers.get("Idempotency-Replayed")
    hold(said == "true", f"Idempotency-Replayed of the replay is {said}")
    return again.told


@must("submit.key-reused", f"{SUBMIT}#idempotency-key")
def key_reused(scene: AdapterScene) -> str:
    """The same key with another intent is 422 idempotency-key-reused."""
    key = str(uuid4())
    expect(scene.submit(scene.command(), key=key), 202)
    return refused(scene.submit(scene.command(), key=key), "idempotency-key-reused")


@must("submit.job-id-conflict", f"{SUBMIT}#idempotency-key")
def job_id_conflict(scene: AdapterScene) -> str:
    """Another key with a job_id that was used is 409 job-id-conflict."""
    command = scene.command()
    expect(scene.submit(command), 202)
    return refused(scene.submit(command), "job-id-conflict")


@must("submit.node-refuses", f"{SUBMIT}#error-semantics")
def node_refuses(scene: AdapterScene) -> str:
    """What the node refuses is refused to the client, by the same problem and status."""
    told = []
    names = (
        "policy-refused",
        "command-expired",
        "image-not-allowed",
        "node-draining",
        "quota-exceeded",
    )
    for name in names:
        command = scene.command()
        scene.node.rules[command["job_id"]] = lambda _, name=name: rejection(name)  # type: ignore[misc]
        told.append(refused(scene.submit(command), name))
    return told[-1]


@must("submit.not-the-nodes", f"{DELIVERY}#error-semantics")
def not_the_nodes(scene: AdapterScene) -> str:
    """A problem that a node has no right to reaches the client as internal-error."""
    command = scene.command()
    scene.node.rules[command["job_id"]] = lambda _: rejection("unauthenticated")
    return refused(scene.submit(command), "internal-error")


@must("submit.contract", f"{SUBMIT}#required-and-optional-fields")
def contract(scene: AdapterScene) -> str:
    """A command that does not fit is 422 validation-failed, names the field, and does not reach the node."""
    shape = {"cpu": "1", "memory_mib": 256, "walltime_seconds": 60}
    seen = len(scene.node.received)
    for changes, field in (
        ({"resource_shape": shape}, "resource_shape.cpu"),
        ({"color": "red"}, "color"),
    ):
        answer = scene.submit(scene.command(**changes))
        refused(answer, "validation-failed")
        named = [each["field"] for each in answer.json["errors"]]
        hold(named == [field], f"{answer.told}: the fields at fault are {named}, not {field}")
    refused(scene.submit(b'{"tenant_id":'), "malformed-request")
    hold(len(scene.node.received) == seen, "the node got a command that does not fit")
    return "resource_shape.cpu and color named"


@must("submit.key-needed", f"{SUBMIT}#idempotency-key")
def key_needed(scene: AdapterScene) -> str:
    """Without a well-formed Idempotency-Key a submission is 400 idempotency-key-invalid."""
    for key in ("", "short"):
        told = refused(scene.submit(scene.command(), key=key), "idempotency-key-invalid")
    return told


@must("submit.addressed", f"{SUBMIT}#tenant-and-auth-boundary")
def addressed(scene: AdapterScene) -> str:
    """A body of another tenant is 403 tenant-mismatch, of another node 422 node-mismatch."""
    refused(scene.submit(scene.command(tenant_id="somebody-else")), "tenant-mismatch")
    return refused(scene.submit(scene.command(management_node_id="another-node")), "node-mismatch")


@must("submit.trace", f"{SUBMIT}#required-and-optional-fields")
def trace(scene: AdapterScene) -> str:
    """The header traceparent counts where the body names no trace."""
    command, parent = scene.command(), f"00-{uuid4().hex}-{'d' * 16}-01"
    expect(scene.submit(command, headers={"traceparent": parent}), 202)
    [got] = scene.node.got(command["job_id"])
    hold(got["body"].get("traceparent") == parent, "the node did not get the trace")
    return parent


@must("delivery.again", f"{DELIVERY}#ordering-and-retry-rule")
def delivered_again(scene: AdapterScene) -> str:
    """A command without a verdict is handed out again, as the same command_id; at last the client gets 504."""
    node, command = scene.node, scene.command()
    node.rules[command["job_id"]] = lambda _: None
    answer = scene.in_time(scene.aside(scene.submit, command))
    got = node.got(command["job_id"])
    hold(len(got) > 1, "the node got the command once")
    hold(len({each["command_id"] for each in got}) == 1, "each time it was another command_id")
    return f"{refused(answer, 'outcome-unknown')}, handed out {len(got)} times"


@must("delivery.verdict-fits", f"{DELIVERY}#error-semantics")
def verdict_fits(scene: AdapterScene) -> str:
    """A verdict that does not answer the command is 422, the client waits on; one that nobody waits for is 404."""
    node, command = scene.node, scene.command()
    wrong = iter([{"outcome": "answered"}])
    node.rules[command["job_id"]] = lambda each: next(wrong, None) or node.verdict(each)
    answer = scene.in_time(scene.aside(scene.submit, command))
    expect(answer, 202)
    bad = [each for each in node.answers if each.status == 422]
    hold(bad and bad[-1].problem == "validation-failed", "the wrong verdict was taken")
    verdict = node.verdict({**node.got(command["job_id"])[-1], "command_id": str(uuid4())})
    return refused(scene.as_node(f"/commands/{uuid4()}/verdict", verdict), "not-found")


@must("delivery.poll", f"{DELIVERY}#required-and-optional-fields")
def poll(scene: AdapterScene) -> str:
    """A poll answers a batch, also an empty one, and refuses what does not fit."""
    answer = scene.as_node("/commands/poll", {"wait_seconds": 0})
    hold(isinstance(expect(answer, 200)["commands"], list), "there is no list of commands")
    return refused(scene.as_node("/commands/poll", {"wait_seconds": 31}), "validation-failed")


@must("cancel.accepted", f"{CANCEL}#idempotency-key")
def cancelled(scene: AdapterScene) -> str:
    """A cancel needs no key, reaches the node, and is 202 with the node's answer."""
    job_id = f"job-{uuid4()}"
    answer = scene.cancel(job_id)
    validated(JobCancellation, expect(answer, 202))
    [got] = scene.node.got(job_id)
    hold(
        got["operation"] == "cancel" and "idempotency_key" not in got, "the node got something else"
    )
    return answer.told


@must("cancel.addressed", f"{CANCEL}#required-and-optional-fields")
def cancel_addressed(scene: AdapterScene) -> str:
    """A cancel that names another job, tenant or node than path and credential is refused."""
    refused(scene.cancel("job-1", job_id="job-2"), "validation-failed")
    refused(scene.cancel("job-1", tenant_id="somebody-else"), "tenant-mismatch")
    return refused(scene.cancel("job-1", management_node_id="another-node"), "node-mismatch")


@must("inspect.live", f"{DELIVERY}#purpose")
def live(scene: AdapterScene) -> str:
    """The live state is the node's."""
    command = scene.command()
    expect(scene.submit(command), 202)
    answer = scene.inspect(command["job_id"])
    view = validated(JobView, expect(answer, 200))
    hold(view.job.job_id == command["job_id"], "it is another job")
    return answer.told
