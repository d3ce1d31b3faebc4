"""The node's HTTP client against a server of its own: what it sends, and what it makes of the answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiida_byoc.agent import credential as module
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.keys import private_key
from aiida_byoc.contracts.delivery import Heartbeat, Verdict
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.node import NodeSettings, SettingsError
from tests.builders import event, submit_body

COMMAND_ID = "33333333-3333-4333-8333-333333333333"


@dataclass
class Adapter:
    """Answers every request alike unless it is told to decide, and keeps what it was sent."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    decide: Callable[[Any], None] = lambda _: None
    """Sees what was sent, and may set the answer."""

    def answer(self, body: Any = None, *, status: int = 200, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Adapter]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    adapter = Adapter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            adapter.requests.append((self.path, dict(self.headers), content))
            adapter.decide(content)
            self.send_response(adapter.status)
            self.send_header("Content-Length", str(len(adapter.body)))
            for name, value in adapter.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(adapter.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    adapter.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield adapter
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def settings(tmp_path: Path, adapter: Adapter, key: Ed25519PrivateKey) -> NodeSettings:
    path = tmp_path / "node.pem"
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return NodeSettings.model_validate(
        {
            "node_id": "n1",
            "adapter_url": f"{adapter.url}/base/",
            "key_file": path,
            "policy_file": tmp_path / "policy.toml",
            "image_store": tmp_path,
            "code": "byoc@slurm",
        }
    )


@pytest.fixture
def client(settings: NodeSettings) -> AdapterClient:
    return AdapterClient(settings)


def claims_of(headers: dict[str, str], key: Ed25519PrivateKey) -> dict[str, Any]:
    scheme, _, token = headers["Authorization"].partition(" ")
    assert scheme == "Bearer"
    return jwt.decode(
        token, key.public_key(), algorithms=["EdDSA"], audience="byoc-adapter", leeway=600
    )


def test_a_poll_asks_and_reads_commands(client: AdapterClient, adapter: Adapter) -> None:
    command = {
        "command_id": COMMAND_ID,
        "operation": "submit",
        "tenant_id": "acme",
        "job_id": "job-1",
        "idempotency_key": "key-0123456789abcdef",
        "body": submit_body(),
    }
    adapter.answer({"commands": [command]})

    (read,) = client.poll(wait_seconds=1, max_commands=7)

    assert read.model_dump(mode="json", exclude_none=True) == command
    path, headers, sent = adapter.requests[0]
    assert path == "/base/v1/nodes/n1/commands/poll"
    assert sent == {
        "wait_seconds": 1,
        "max_commands": 7,
        "operations": ["logs", "receipt", "signatures"],
    }
    assert headers["User-Agent"].startswith("aiida-byoc-agent/")


def test_a_token_is_short_lived_and_the_nodes_own(
    client: AdapterClient, adapter: Adapter, key: Ed25519PrivateKey
) -> None:
    adapter.answer({"commands": []})

    client.poll(wait_seconds=0, max_commands=1)

    claims = claims_of(adapter.requests[0][1], key)
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("n1", "n1", "byoc-adapter")
    assert claims["exp"] - claims["iat"] == 300
    assert abs(claims["iat"] - datetime.now(UTC).timestamp()) < 30


def test_a_token_is_used_until_half_of_its_life(
    client: AdapterClient,
    adapter: Adapter,
    key: Ed25519PrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter.answer({"commands": []})
    now = datetime.now(UTC).timestamp()
    for passed in (0, 149, 151):
        monkeypatch.setattr(module.time, "time", lambda passed=passed: now + passed)
        client.poll(wait_seconds=0, max_commands=1)
    monkeypatch.undo()

    first, second, third = (claims_of(headers, key)["jti"] for _, headers, _ in adapter.requests)
    assert first == second
    assert second != third


def test_events_travel_as_a_batch(client: AdapterClient, adapter: Adapter) -> None:
    batch = [event().wire(), event("launched", seq=2).wire()]
    submission = batch[0]["data"]["submission_id"]
    adapter.answer({"next_seq": {submission: 3}, "quarantined": [], "later_field": 1})

    acknowledgement = client.events(batch)

    assert acknowledgement.next_seq == {submission: 3}
    path, headers, sent = adapter.requests[0]
    assert path == "/base/v1/nodes/n1/events"
    assert headers["Content-Type"] == "application/cloudevents-batch+json"
    assert sent == batch


def test_a_verdict_and_a_heartbeat_are_sent(client: AdapterClient, adapter: Adapter) -> None:
    verdict = Verdict(outcome="rejected", problem=ProblemError("node-failed").problem())
    beat = Heartbeat(sent_at=datetime.now(UTC), versions={"python": "3"}, jobs_active=2)

    client.verdict(COMMAND_ID, verdict)
    client.heartbeat(beat)

    (path, _, sent), (beat_path, _, told) = adapter.requests
    assert path == f"/base/v1/nodes/n1/commands/{COMMAND_ID}/verdict"
    assert Verdict.model_validate_json(json.dumps(sent)) == verdict
    assert beat_path == "/base/v1/nodes/n1/heartbeat"
    assert told["jobs_active"] == 2


VERDICT = Verdict(outcome="rejected", problem=ProblemError("node-failed").problem())
OTHER_ID = "44444444-4444-4444-8444-444444444444"


def paths_of(adapter: Adapter) -> list[str]:
    return [path.removeprefix("/base/v1/nodes/n1/commands/") for path, _, _ in adapter.requests]


def test_verdicts_go_along_with_a_poll_once_the_adapter_says_that_it_takes_them(
    client: AdapterClient, adapter: Adapter
) -> None:
    adapter.answer({"commands": [], "takes_verdicts": True})
    client.poll(wait_seconds=0, max_commands=1, verdicts=[(COMMAND_ID, VERDICT)])
    adapter.requests.clear()

    given = [(COMMAND_ID, VERDICT), (OTHER_ID, VERDICT)]
    client.poll(wait_seconds=0, max_commands=1, verdicts=given)

    [(path, _, sent)] = adapter.requests
    assert path.endswith("/commands/poll")
    assert [each["command_id"] for each in sent["verdicts"]] == [COMMAND_ID, OTHER_ID]
    assert [each["verdict"] for each in sent["verdicts"]] == [VERDICT.wire()] * 2


def test_an_adapter_of_the_version_before_gets_each_verdict_by_itself(
    client: AdapterClient, adapter: Adapter
) -> None:
    adapter.answer({"commands": []})

    for _ in range(2):  # also once it has answered a poll
        client.poll(wait_seconds=0, max_commands=1, verdicts=[(COMMAND_ID, VERDICT)])

    assert paths_of(adapter) == [f"{COMMAND_ID}/verdict", "poll"] * 2
    assert all("verdicts" not in sent for _, _, sent in adapter.requests)


def test_an_adapter_that_was_replaced_by_an_older_one_gets_the_verdicts_too(
    client: AdapterClient, adapter: Adapter
) -> None:
    adapter.answer({"commands": [], "takes_verdicts": True})
    client.poll(wait_seconds=0, max_commands=1)
    adapter.requests.clear()

    def older(sent: dict[str, Any]) -> None:
        error = ProblemError("validation-failed", errors=[FieldError(field="verdicts", message="")])
        refusal = error.problem().model_dump(mode="json", exclude_none=True)
        if "verdicts" in sent:
            adapter.answer(refusal, status=422)
        else:
            adapter.answer({"commands": []})

    adapter.decide = older
    assert client.poll(wait_seconds=0, max_commands=1, verdicts=[(COMMAND_ID, VERDICT)]) == []

    assert paths_of(adapter) == ["poll", f"{COMMAND_ID}/verdict", "poll"]


def test_verdicts_for_which_a_poll_has_no_room_go_by_themselves(
    client: AdapterClient, adapter: Adapter
) -> None:
    adapter.answer({"commands": [], "takes_verdicts": True})
    client.poll(wait_seconds=0, max_commands=1)
    adapter.requests.clear()
    long = VERDICT.model_copy(
        update={"problem": ProblemError("node-failed", "x" * 400_000).problem()}
    )

    client.poll(wait_seconds=0, max_commands=1, verdicts=[(COMMAND_ID, long), (OTHER_ID, long)])

    assert paths_of(adapter) == [f"{OTHER_ID}/verdict", "poll"]
    assert [each["command_id"] for each in adapter.requests[1][2]["verdicts"]] == [COMMAND_ID]


def test_a_command_that_nobody_waits_for_is_answered_all_the_same(
    client: AdapterClient, adapter: Adapter
) -> None:
    adapter.answer({"detail": "no such command"}, status=404)

    client.verdict(COMMAND_ID, Verdict(outcome="accepted"))

    with pytest.raises(AdapterUnavailable, match="HTTP 404"):
        client.heartbeat(Heartbeat(sent_at=datetime.now(UTC), versions={}))


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (401, {"detail": "no valid credential"}, "401: no valid"),
        (429, {"detail": "slow down"}, "429: slow down"),
        (502, b"<html>", "502: no problem document"),
        (500, ["no", "object"], "500: no problem document"),
        (302, b"", "302: no problem document"),
    ],
)
def test_whatever_is_no_success_is_for_later(
    client: AdapterClient, adapter: Adapter, status: int, said: Any, message: str
) -> None:
    adapter.answer(said, status=status, Location=f"{adapter.url}/elsewhere")

    with pytest.raises(AdapterUnavailable, match=message) as caught:
        client.poll(wait_seconds=0, max_commands=1)
    assert caught.value.retry_after is None
    assert len(adapter.requests) == 1


@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("0", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("", None)],
)
def test_the_adapters_wish_to_wait_is_kept(
    client: AdapterClient, adapter: Adapter, header: str, wait: float | None
) -> None:
    adapter.answer({"detail": "the product is away"}, status=503, Retry_After=header)

    with pytest.raises(AdapterUnavailable, match="503: the product is away") as caught:
        client.events([event().wire()])
    assert caught.value.retry_after == wait


def test_an_adapter_that_is_not_there_is_for_later(settings: NodeSettings) -> None:
    gone = settings.model_copy(update={"adapter_url": "http://127.0.0.1:1"})

    with pytest.raises(AdapterUnavailable, match="ConnectError"):
        AdapterClient(gone).events([event().wire()])


@pytest.mark.parametrize("said", [b"<html>hello</html>", b'{"commands": 1}', b"\xff", b""])
def test_a_success_without_sense_is_for_later(
    client: AdapterClient, adapter: Adapter, said: bytes
) -> None:
    """A proxy's page with status 200 is no acknowledgement, and no reason to drop the database."""
    adapter.answer(said)

    with pytest.raises(AdapterUnavailable):
        client.poll(wait_seconds=0, max_commands=1)
    with pytest.raises(AdapterUnavailable):
        client.events([event().wire()])


def test_a_key_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    with pytest.raises(SettingsError, match=r"node\.pem cannot be read: No such file"):
        private_key(path)
    path.touch(mode=0o600)
    path.write_text("no key")
    with pytest.raises(SettingsError, match=r"node\.pem is not a private key in PEM form"):
        private_key(path)
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SettingsError, match=r"node\.pem is not an Ed25519 key"):
        private_key(path)


def full_heartbeat() -> Heartbeat:
    return Heartbeat(
        sent_at=datetime.now(UTC),
        versions={"python": "3"},
        jobs_active=2,
        partitions=[],
        jobs_waiting=1,
        jobs_running=1,
        slots_free=3,
        clock_skew_seconds=0.5,
        trouble=["slurm"],
    )


def test_an_adapter_of_the_version_before_gets_what_it_knows(
    client: AdapterClient, adapter: Adapter
) -> None:
    """It refuses the new fields; the node repeats without them at once, and does not try each time."""
    known = {"sent_at", "versions", "jobs_active", "queues", "runtimes", "draining"}
    known |= {"events_undelivered", "oldest_undelivered_seconds"}
    refusals: list[set[str]] = []

    def decide(sent: dict[str, Any]) -> None:
        unknown = sent.keys() - known
        refusals.append(set(unknown))
        if unknown:
            errors = [{"field": name, "message": "Extra inputs"} for name in sorted(unknown)]
            kind = "https://aiida-byoc.org/problems/validation-failed"
            adapter.answer({"type": kind, "detail": "no", "errors": errors}, status=422)
        else:
            adapter.answer({"received_at": "2026-03-01T12:00:15.000Z"})

    adapter.decide = decide

    for _ in range(2):
        client.heartbeat(full_heartbeat())

    assert [bool(unknown) for unknown in refusals] == [True, False, False]


def test_another_fault_of_a_heartbeat_is_for_later(client: AdapterClient, adapter: Adapter) -> None:
    errors = [{"field": "queues.0", "message": "String should match pattern"}]
    kind = "https://aiida-byoc.org/problems/validation-failed"
    adapter.answer({"type": kind, "detail": "no", "errors": errors}, status=422)

    with pytest.raises(AdapterUnavailable, match="422"):
        client.heartbeat(full_heartbeat())
    assert len(adapter.requests) == 1


@pytest.mark.parametrize(("behind", "skew"), [(0, 0), (90, 90), (-3600, -3600)])
def test_the_answer_to_a_heartbeat_tells_the_clocks_skew(
    client: AdapterClient, adapter: Adapter, behind: int, skew: int
) -> None:
    def decide(_: Any) -> None:
        at = datetime.now(UTC) - timedelta(seconds=behind)
        adapter.answer({"received_at": at.isoformat()})

    adapter.decide = decide

    assert client.heartbeat(full_heartbeat()) == pytest.approx(skew, abs=1)


@pytest.mark.parametrize("said", [{}, [], {"received_at": "noon"}, {"received_at": 7}])
def test_an_answer_without_a_time_tells_no_skew(
    client: AdapterClient, adapter: Adapter, said: Any
) -> None:
    adapter.answer(said)

    assert client.heartbeat(full_heartbeat()) is None
