"""Our agent keeps every MUST of a node, and the kit finds each that a broken copy of it breaks. No Slurm is needed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import HttpUrl

from aiida_byoc.agent.answering import Answering
from aiida_byoc.agent.channel import decide
from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.agent.logs import LogDesk
from aiida_byoc.agent.reader import Reader
from aiida_byoc.agent.relaying import relay_lanes
from aiida_byoc.agent.supervisor import Step, _Loop
from aiida_byoc.contracts.conformance.musts import Finding, table
from aiida_byoc.contracts.conformance.node import try_node
from aiida_byoc.contracts.conformance.node_scene import NodeTestSettings
from aiida_byoc.contracts.conformance.played_adapter import PlayedAdapter
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.node import NodeSettings
from tests.builders import NODE, POLICY, submit_body
from tests.postgres.conftest import _fresh
from tests.service.proxy import Broken, Passing, changed


def as_it_is(settings: NodeSettings) -> Step:
    """The agent's own step; nothing here asks for logs, which need AiiDA."""
    return Answering(settings, LogDesk(settings, Reader([]))).step


def commits_last(settings: NodeSettings) -> Step:
    """A broken step: its verdict leaves before the transaction ends, and takes it with it where it cannot be told."""

    def step(connection: psycopg.Connection, client: AdapterClient) -> float:
        for command in client.poll(wait_seconds=1, max_commands=20):
            with connection.transaction():
                client.verdict(command.command_id, decide(connection, settings, command))
        return 0

    return step


PATIENCE = 45
"""For a decision or a delivery, in seconds."""

Channel = Callable[[NodeSettings], Step]


@contextmanager
def agent(settings: NodeSettings, storage: dict[str, Any], channel: Channel) -> Iterator[None]:
    """The loops of an agent, as `verdi data byoc agent run` starts them."""
    pulse = Pulse(settings)

    def beat(connection: psycopg.Connection, client: AdapterClient) -> float:
        client.heartbeat(pulse.heartbeat(connection))
        return settings.heartbeat_seconds

    steps: dict[str, Step] = {
        "channel": channel(settings),
        "heartbeat": beat,
        **relay_lanes(),
    }
    stopping = threading.Event()
    loops = [
        _Loop(name, step, AdapterClient(settings), storage, stopping)
        for name, step in steps.items()
    ]
    threads = [threading.Thread(target=loop.run, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(15)


@pytest.fixture(scope="module")
def tried(postgres, template: str, tmp_path_factory) -> Callable[..., list[Finding]]:
    """Try an agent with a database of its own."""
    base: Path = tmp_path_factory.mktemp("nodes")

    def tried(channel: Channel = as_it_is, **mutant: Any) -> list[Finding]:
        directory = base / uuid4().hex
        directory.mkdir()
        with ExitStack() as stack:
            adapter = PlayedAdapter(("127.0.0.1", 0))
            stack.callback(adapter.stop)
            proxy = Broken(urlsplit(adapter.url).port or 0, **mutant)
            stack.callback(proxy.stop)
            storage = stack.enter_context(contextmanager(_fresh)(postgres, template))
            settings = node_settings(directory, proxy.url)
            stack.enter_context(agent(settings, storage, channel))
            known = {
                "node_id": NODE,
                "command": submit_body(),
                "other_tenant_id": "globex",
                "patience_seconds": PATIENCE,
            }
            return list(try_node(NodeTestSettings.model_validate(known), adapter))

    return tried


def node_settings(directory: Path, url: str) -> NodeSettings:
    key, policy = directory / "node.pem", directory / "policy.toml"
    key.touch(mode=0o600)
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*pem))
    policy.write_text(POLICY)
    return NodeSettings(
        node_id=NODE, adapter_url=HttpUrl(url), key_file=key, policy_file=policy, image_store=directory / "images",
        code="byoc@slurm", poll_seconds=1,
    )  # fmt: skip


def broken(findings: list[Finding]) -> set[str]:
    return {each.must for each in findings if each.verdict == "broken"}


def rewritten(asked: Passing, body: Any) -> Passing:
    return changed(asked, content=json.dumps(body).encode())


def mints_ids_anew(asked: Passing) -> Passing:
    if not asked.path.endswith("/events"):
        return asked
    return rewritten(asked, [{**event, "id": str(uuid4())} for event in json.loads(asked.content)])


def verdict(asked: Passing) -> dict[str, Any]:
    return json.loads(asked.content) if asked.path.endswith("/verdict") else {}


def forgets_whom_it_accepted(asked: Passing) -> Passing:
    if verdict(asked).get("outcome") != "replayed" or "acceptance" not in verdict(asked):
        return asked
    told = {**verdict(asked)["acceptance"], "submission_id": str(uuid4())}
    return rewritten(asked, {"outcome": "replayed", "acceptance": told})


def says(old: str, new: str) -> Callable[[Passing], Passing]:
    """Rejects with another problem than the contract wants."""

    def change(asked: Passing) -> Passing:
        kind = verdict(asked).get("problem", {}).get("type", "").rpartition("/")[2]
        problem = ProblemError(new).problem().model_dump(mode="json", exclude_none=True)
        return (
            rewritten(asked, {"outcome": "rejected", "problem": problem}) if kind == old else asked
        )

    return change


def says_whose_it_is(asked: Passing) -> Passing:
    if verdict(asked).get("problem", {}).get("type", "").rpartition("/")[2] != "not-found":
        return asked
    told = {**verdict(asked)["problem"], "detail": f"No such thing: {uuid4()}."}
    return rewritten(asked, {"outcome": "rejected", "problem": told})


def trusts_the_envelope(_: Passing, answered: Passing) -> Passing:
    body = json.loads(answered.content) if answered.content else {}
    for command in body.get("commands", []):
        if command["operation"] == "submit" and command["job_id"] != command["body"]["job_id"]:
            command["body"]["job_id"] = command["job_id"]
    return changed(answered, content=json.dumps(body).encode()) if "commands" in body else answered


def with_acknowledgement(
    change: Callable[[dict[str, Any]], None],
) -> Callable[[Passing, Passing], Passing]:
    def answer(asked: Passing, answered: Passing) -> Passing:
        if not asked.path.endswith("/events") or answered.status != 200:
            return answered
        body = json.loads(answered.content)
        change(body)
        return changed(answered, content=json.dumps(body).encode())

    return answer


def never_goes_back(body: dict[str, Any]) -> None:
    body.pop("missing_from", None)


def goes_on_too_far(body: dict[str, Any]) -> None:
    body["next_seq"] = {
        job: 3 if wanted == 2 else wanted for job, wanted in body["next_seq"].items()
    }


def hears_of_no_refusal(body: dict[str, Any]) -> None:
    body["quarantined"] = []


def insists(_: Passing, answered: Passing) -> Passing:
    return changed(answered, status=503) if answered.status == 413 else answered


def begins_elsewhere(asked: Passing) -> Passing:
    if not asked.path.endswith("/events"):
        return asked
    return changed(
        asked, content=re.sub(rb"accepted(?=\.v1|\")(?!\":)", b"launched", asked.content)
    )


def has_one_id(asked: Passing) -> Passing:
    if not asked.path.endswith("/events"):
        return asked
    return rewritten(asked, [{**event, "id": "the-event"} for event in json.loads(asked.content)])


def asks_anew(asked: Passing) -> Passing:
    if "cancellation" not in verdict(asked):
        return asked
    when = datetime.now(UTC).isoformat()
    return rewritten(
        asked,
        {
            **verdict(asked),
            "cancellation": {**verdict(asked)["cancellation"], "requested_at": when},
        },
    )


def shows_another_job(asked: Passing) -> Passing:
    view = verdict(asked).get("job")
    if view is None:
        return asked
    return rewritten(
        asked,
        {
            "outcome": "answered",
            "job": {**view, "job": {**view["job"], "submission_id": str(uuid4())}},
        },
    )


def tells_tenants(asked: Passing) -> Passing:
    if not asked.path.endswith("/heartbeat"):
        return asked
    return rewritten(asked, {**json.loads(asked.content), "queues": ["acme"]})


def shows_no_token(asked: Passing) -> Passing:
    return changed(
        asked,
        headers={name: text for name, text in asked.headers.items() if name != "Authorization"},
    )


def polls_too_long(asked: Passing) -> Passing:
    return changed(
        asked, content=asked.content.replace(b'"wait_seconds":1', b'"wait_seconds":1,"color":"red"')
    )


MUTANTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "goes-on-too-far": ({"answer": with_acknowledgement(goes_on_too_far)}, {"events.partial"}),
    "never-goes-back": ({"answer": with_acknowledgement(never_goes_back)}, {"events.rewind"}),
    "commits-last": ({"channel": commits_last}, {"submit.committed-first"}),
    "forgets-whom-it-accepted": (
        {"ask": forgets_whom_it_accepted},
        {"submit.replayed", "submit.committed-first"},
    ),
    "takes-any-payload": (
        {"ask": says("idempotency-key-reused", "job-id-conflict")},
        {"submit.key-reused"},
    ),
    "takes-any-job": (
        {"ask": says("job-id-conflict", "policy-refused")},
        {"submit.job-id-conflict"},
    ),
    "forgets-tombstones": (
        {"ask": says("job-cancelled", "job-id-conflict")},
        {"cancel.first-wins"},
    ),
    "trusts-the-envelope": ({"answer": trusts_the_envelope}, {"submit.addressed"}),
    "says-whose-it-is": ({"ask": says_whose_it_is}, {"inspect.alike"}),
    "mints-ids-anew": ({"ask": mints_ids_anew}, {"events.same-again", "events.nonsense"}),
    "hears-of-no-refusal": (
        {"answer": with_acknowledgement(hears_of_no_refusal)},
        {"events.quarantined-alone"},
    ),
    "insists": ({"answer": insists}, {"events.halved"}),
    "begins-elsewhere": ({"ask": begins_elsewhere}, {"events.contiguous"}),
    "has-one-id": ({"ask": has_one_id}, {"events.ids"}),
    "asks-anew": ({"ask": asks_anew}, {"cancel.ends"}),
    "shows-another-job": ({"ask": shows_another_job}, {"inspect.live"}),
    "lets-anything-in": (
        {"ask": says("validation-failed", "policy-refused")},
        {"submit.refusal-stores-nothing", "submit.addressed"},
    ),
    "says-too-much": (
        {"ask": says("not-found", "policy-refused")},
        {"submit.served-tenants", "inspect.alike"},
    ),
    "tells-tenants": ({"ask": tells_tenants}, {"heartbeat.contract"}),
    "shows-no-token": ({"ask": shows_no_token}, {"auth.bearer"}),
    "polls-too-long": ({"ask": polls_too_long}, {"poll.contract"}),
}
AT_A_TIME = 11


@pytest.fixture(scope="module")
def found(tried: Callable[..., list[Finding]]) -> dict[str, list[Finding]]:
    """What the kit finds of the agent and of each broken copy; several at a time, since most of it is waiting."""
    trials = {"": {}} | {name: mutant for name, (mutant, _) in MUTANTS.items()}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return dict(
            zip(trials, pool.map(lambda mutant: tried(**mutant), trials.values()), strict=True)
        )


def test_our_agent_keeps_every_must(found: dict[str, list[Finding]]) -> None:
    assert {each.verdict for each in found[""]} == {"kept"}, table(found[""])
    assert len(found[""]) > 20


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_agent_is_found_out(name: str, found: dict[str, list[Finding]]) -> None:
    _, expected = MUTANTS[name]
    findings = found[name]

    assert broken(findings) == expected, table(findings)
