"""Whom an adapter MUST let in, and what strangers MUST NOT learn."""

from __future__ import annotations

import json
from uuid import uuid4

from aiida_byoc.contracts.conformance.adapter_scene import AdapterScene
from aiida_byoc.contracts.conformance.musts import Musts, NotTested, hold
from aiida_byoc.contracts.conformance.wire import Answer, expect, refused

__all__ = ["WALLS"]

WALLS: Musts[AdapterScene] = Musts()
must = WALLS.must


@must("auth.unauthenticated", "errors.md#ordering-and-retry-rule")
def unauthenticated(scene: AdapterScene) -> str:
    """Without a valid credential every route is 401, and never says what is wrong with it."""
    base, answers = f"/v1/nodes/{scene.settings.node_id}", []
    routes = [
        ("POST", "/jobs"),
        ("GET", "/jobs/job-1"),
        ("POST", "/jobs/job-1/cancel"),
        ("GET", "/jobs/job-1/logs"),
    ]
    routes += [("POST", "/commands/poll"), ("POST", "/events"), ("POST", "/heartbeat")]
    for method, path in routes:
        for token in (None, "nonsense", scene.settings.client_token[:-8] + "AAAAAAAA"):
            answer = scene.wire.ask(
                method, base + path, None if method == "GET" else {}, token=token
            )
            refused(answer, "unauthenticated")
            answers.append(json.dumps({**answer.json, "instance": None}))
    hold(len(set(answers)) == 1, "not all 401 are alike")
    return f"{len(answers)} requests, one 401"


@must("auth.kinds", "node-enrolment.md#tenant-and-auth-boundary")
def kinds(scene: AdapterScene) -> str:
    """A node's credential is good at no client's route, and a client's at no node's."""
    refused(scene.submit(scene.command(), token=scene.settings.node_token), "unauthenticated")
    path = f"/v1/nodes/{scene.settings.node_id}/heartbeat"
    answer = scene.wire.ask("POST", path, {}, token=scene.settings.client_token)
    return refused(answer, "unauthenticated")


@must("auth.scope", "errors.md#ordering-and-retry-rule")
def scope(scene: AdapterScene) -> str:
    """A credential without the route's scope is 403 forbidden."""
    token = scene.settings.powerless_token
    if token is None:
        raise NotTested("give `powerless_token`: a client's token without scopes")
    refused(scene.inspect("job-1", token=token), "forbidden")
    return refused(scene.submit(scene.command(), token=token), "forbidden")


@must("auth.foreign-alike", "errors.md#tenant-and-auth-boundary")
def foreign_alike(scene: AdapterScene) -> str:
    """What is another tenant's and what does not exist are the same 404, word for word."""
    foreign, nobody = scene.foreign, f"node-{uuid4().hex[:8]}"
    command = scene.command()
    expect(scene.submit(command), 202)
    answers = [scene.inspect("job-1", node_id=node) for node in (nobody, foreign.node_id)]
    answers += [scene.cancel("job-1", node_id=node) for node in (nobody, foreign.node_id)]
    answers += [scene.submit(scene.command(), node_id=node) for node in (nobody, foreign.node_id)]
    answers += [scene.inspect(job) for job in (f"job-{uuid4()}", "no%20name")]
    for node in (nobody, foreign.node_id):
        path = f"/v1/nodes/{node}/heartbeat"
        answers.append(scene.wire.ask("POST", path, {}, token=scene.settings.node_token))
    return _alike(answers)


@must("auth.tenants-apart", "command-submit-job.md#tenant-and-auth-boundary")
def tenants_apart(scene: AdapterScene) -> str:
    """A job of another tenant on the same node is not found."""
    command = scene.command()
    expect(scene.submit(command), 202)
    stranger = scene.inspect(command["job_id"], token=scene.foreign.client_token)
    return _alike([stranger, scene.inspect(f"job-{uuid4()}")])


def _alike(answers: list[Answer]) -> str:
    for answer in answers:
        refused(answer, "not-found")
    bodies = {answer.body: answer.asked for answer in answers}
    hold(len(bodies) == 1, f"these differ: {'; '.join(bodies.values())}")
    return f"{len(answers)} requests, one 404"
