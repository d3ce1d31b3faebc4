"""Commands on their way from the product to the adapter, over HTTP: to one that plays faults, and through the real one.

Against the lab's server: a real deployment cannot reach what listens here.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from aiida_byoc.contracts import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.signature import signing_input
from lab.credentials import make_signing_jwk
from tests.convex.conftest import Deployment, Lab, Signer, Tenant
from tests.eventually import eventually
from tests.service.adapter_process import Adapter
from tests.service.events import event
from tests.service.node import PROBLEMS, ScriptedNode

ISSUER = "https://product.test/commands"
COMMAND = {
    "execution_profile": {"queue_name": "default"},
    "resource_shape": {"cpu": 1, "memory_mib": 256, "walltime_seconds": 60},
    "workload": {
        "kind": "container",
        "image": "localhost/byoc/demo:1",
        "argv": ["/bin/true", "größer"],
    },
}


@dataclass
class FaultyAdapter:
    """Plays an adapter, and its node's ledger: what it executes it remembers by key; `faults` come first, in turn."""

    port: int = 0
    faults: list[Callable[[FaultyAdapter, dict[str, Any]], Any]] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        adapter = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = {"path": self.path, "headers": dict(self.headers), "body": body}
                adapter.requests.append(request)
                act = adapter.faults.pop(0) if adapter.faults else accept
                answer = act(adapter, request)
                if answer is None:  # not a word
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                text = json.dumps(content).encode()
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def execute(self, request: dict[str, Any]) -> None:
        key = request["headers"].get("Idempotency-Key")
        if key not in self.executed:
            self.executed.append(key)


def accept(adapter: FaultyAdapter, request: dict[str, Any]) -> Any:
    adapter.execute(request)
    job_id = request["body"]["job_id"]
    status = "cancelling" if request["path"].endswith("/cancel") else "accepted"
    return 202, {"Content-Type": "application/json"}, {"job_id": job_id, "status": status}


def lose(adapter: FaultyAdapter, request: dict[str, Any]) -> None:
    adapter.execute(request)


def refuse(status: int, name: str, **headers: str) -> Callable[..., Any]:
    content = {
        "type": PROBLEMS + name,
        "title": f"it is {name}",
        "status": status,
        "detail": "Look.",
    }
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return lambda *_: (status, {"Content-Type": "application/problem+json", **named}, content)


@dataclass(frozen=True)
class Product:
    """A deployment that delivers, and a tenant in it."""

    tenant: Tenant
    command_key: Signer
    lab: Lab

    def submit(self, job_id: str, **fields: Any) -> dict[str, Any]:
        args = {"workspace_id": "w1", "node_id": self.tenant.node_id, "job_id": job_id}
        answer = self.call("mutation", "commands:submitJob", **args, command=COMMAND | fields)
        assert answer["status"] == "success", answer
        value: dict[str, Any] = answer["value"]
        return value

    def call(self, kind: str, path: str, **args: Any) -> dict[str, Any]:
        """As a member without further rights."""
        given = {"tenant_id": self.tenant.tenant_id} | args
        return self.tenant.deployment.call(kind, path, given, self.tenant.member)

    def read(self, path: str, job_id: str) -> Any:
        return self.call("query", path, job_id=job_id)["value"]

    def until(self, job_id: str, state: str, operation: str = "submit") -> dict[str, Any]:
        """The command about the job, once it is in that state."""

        def found() -> dict[str, Any] | None:
            known = {one["operation"]: one for one in self.read("commands:list", job_id)}
            command = known.get(operation)
            return command if command is not None and command["state"] == state else None

        what = f"{operation} of {job_id} to be {state}"
        return eventually(found, what, seconds=30, logs=[self.lab.paths.logs / "convex.log"])


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyAdapter]:
    adapter = FaultyAdapter()
    adapter.start()
    yield adapter
    adapter.stop()


@pytest.fixture(scope="module")
def products(
    new_lab: Callable[..., Lab], real_url: str | None
) -> Iterator[Callable[[str], Product]]:
    if real_url is not None:
        pytest.skip("a real deployment cannot reach an adapter on this machine")
    clients: list[httpx.Client] = []

    def start(adapter_url: str) -> Product:
        jwk = make_signing_jwk()
        private = ECAlgorithm(ECAlgorithm.SHA256).from_jwk(jwk)
        lab = new_lab(
            BYOC_ADAPTER_URL=adapter_url,
            BYOC_COMMAND_ISSUER=ISSUER,
            BYOC_COMMAND_KEY=json.dumps(jwk),
        )
        served, _ = lab.ready()
        clients.append(httpx.Client(base_url=served.url, timeout=30))
        deployment = Deployment(served, lab.product, lab.service, clients[-1])
        return Product(Tenant(deployment), Signer(ISSUER, private, jwk["kid"]), lab)

    yield start
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def product(products, faulty) -> Product:
    return products(f"http://127.0.0.1:{faulty.port}")


@pytest.fixture
def adapter(faulty) -> FaultyAdapter:
    faulty.faults, faulty.executed, faulty.requests = [], [], []
    return faulty


def test_a_lost_reply_runs_the_job_once(product, adapter):
    adapter.faults = [lose, lose]

    sent = product.submit("lost")

    assert product.until("lost", "accepted")["attempts"] == 3
    assert adapter.executed == [f'"{sent["command_id"]}"']
    assert len({json.dumps(one["body"]) for one in adapter.requests}) == 1
    SubmitJobCommand.model_validate(adapter.requests[0]["body"])


def test_a_node_that_is_away_is_waited_for_as_long_as_it_asks(product, adapter):
    adapter.faults = [refuse(503, "node-unreachable", Retry_After="2")]

    product.submit("away")

    waiting = eventually(
        lambda: next(
            (one for one in product.read("commands:list", "away") if "last_problem" in one), None
        ),
        "a reason",
    )
    assert (waiting["state"], waiting["last_problem"]["code"]) == ("pending", "node-unreachable")
    assert waiting["next_at"] > waiting["last_problem"]["at"]
    assert product.read("jobs:get", "away")["message"] == "it is node-unreachable. Look."
    assert product.until("away", "accepted")["attempts"] == 2
    assert product.read("jobs:get", "away")["execution_state"] == "submitting"


def test_an_adapter_that_is_down_is_tried_until_it_is_back(product, adapter):
    adapter.stop()

    product.submit("down")
    eventually(
        lambda: (
            product.read("commands:list", "down")[0].get("last_problem", {}).get("code")
            == "adapter-unreachable"
        ),
        "the adapter to be missed",
    )
    adapter.start()

    assert product.until("down", "accepted")["attempts"] >= 2


def test_a_refusal_is_for_good_and_says_why(product, adapter):
    adapter.faults = [refuse(422, "policy-refused")]

    product.submit("refused")

    command = product.until("refused", "refused")
    job = product.read("jobs:get", "refused")
    assert (job["state"], job["error"]["code"], job["error"]["message"]) == (
        "failed",
        "policy-refused",
        "it is policy-refused. Look.",
    )
    options = {"paginationOpts": {"numItems": 9, "cursor": None}}
    told = product.call("query", "jobs:timeline", job_id="refused", **options)["value"]["page"]
    assert [one["execution_state"] for one in told] == ["submitting", "refused"]
    assert (command["attempts"], len(adapter.requests)) == (1, 1)
    failed = product.call("query", "jobs:list", state="failed", text="refus", **options)["value"]
    assert [one["job_id"] for one in failed["page"]] == ["refused"]


def test_a_cancel_in_doubt_goes_before_the_submission(product, adapter):
    adapter.faults = [lose, refuse(503, "node-unreachable")]
    product.submit("doubt")
    eventually(lambda: adapter.requests, "a first attempt")

    answer = product.call("mutation", "commands:cancelJob", job_id="doubt", reason="not needed")

    assert answer["status"] == "success", answer
    product.until("doubt", "accepted", "cancel")
    assert product.until("doubt", "accepted")
    [cancel] = [one["body"] for one in adapter.requests if one["path"].endswith("/cancel")][-1:]
    assert CancelJobCommand.model_validate(cancel).reason == "not needed"


def test_what_cannot_be_meant_is_refused_by_name(product, adapter):
    args = {"workspace_id": "w1", "node_id": product.tenant.node_id, "job_id": "bad"}
    for wrong, named in [
        ({"command": COMMAND | {"tenant_id": "rival"}}, "command.tenant_id"),
        ({"command": {**COMMAND, "workload": 7}}, "command.workload"),
        ({"command": COMMAND | {"deadline": "tomorrow"}}, "command.deadline"),
        ({"command": COMMAND | {"deadline": "2020-01-01T00:00:00Z"}}, "command.deadline"),
        ({"command": "no JSON"}, "command"),
        ({"command": COMMAND, "job_id": "a b"}, "job_id"),
    ]:
        answer = product.call("mutation", "commands:submitJob", **(args | wrong))
        assert answer["errorData"]["code"] == "invalid", answer
        assert answer["errorData"]["message"].startswith(named)
    assert adapter.requests == []
    odd = json.dumps({**COMMAND, "workload": {**COMMAND["workload"], "env": {"_ODD": "1"}}})
    answer = product.call("mutation", "commands:submitJob", **(args | {"command": odd}))
    assert answer["status"] == "success", answer
    product.until("bad", "accepted")
    assert adapter.requests[-1]["body"]["workload"]["env"] == {"_ODD": "1"}


@dataclass(frozen=True)
class NodeKeys:
    """Tokens of a node, as its agent would sign them."""

    signer: Signer

    def node(self, _: str) -> str:
        return self.signer.token(self.signer.iss, aud="byoc-adapter")


def test_through_the_real_adapter_to_a_node_and_back(products, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    product = products(f"http://127.0.0.1:{port}")
    tenant, lab = product.tenant, product.lab
    signer = Signer.generate(tenant.node_id)
    key_file = tmp_path / "service.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_file.write_bytes(lab.service.key.private_bytes(*form))
    settings = {
        "nodes": {tenant.node_id: {"jwks": signer.issuer.jwks, "tenants": [tenant.tenant_id]}},
        "convex": {
            "url": tenant.deployment.convex.url,
            "service_issuer": lab.service.iss,
            "service_key_file": str(key_file),
            "key_id": lab.service.kid,
        },
        "client_issuers": [
            {"issuer": ISSUER, "jwks": product.command_key.issuer.jwks, "algorithms": ["ES256"]}
        ],
    }
    sent = product.submit("real")
    adapter = Adapter(tmp_path, settings, port)
    try:
        # Nobody is there yet: the adapter says so, and the product says it on.
        eventually(
            lambda: (
                product.read("jobs:get", "real").get("message", "") == "The node is not connected."
            ),
            "the node to be missed",
            seconds=20,
        )
        node = ScriptedNode(adapter.url, NodeKeys(signer), tenant.node_id)
        node.knows("signatures")

        product.until("real", "accepted")

        received = node.received[-1]
        assert received["idempotency_key"] == sent["command_id"]
        assert received["body"]["requested_by"] == {"user_id": tenant.member_id}
        assert is_signed(received, lab.signing)
        told = event(str(received["command_id"]), 1, tenant_id=tenant.tenant_id)
        told["data"] |= {"job_id": "real", "workspace_id": "w1"}
        told |= {"source": f"/nodes/{tenant.node_id}", "subject": "real"}
        headers = {"Authorization": f"Bearer {NodeKeys(signer).node('')}"}
        httpx.post(
            f"{adapter.url}/v1/nodes/{tenant.node_id}/events", json=[told], headers=headers
        ).raise_for_status()
        assert product.read("jobs:get", "real")["seq"] == 1

        node.decide = lambda command: (
            node.reject("policy-refused", 422)
            if command["operation"] == "submit"
            else node.accept(command)
        )
        product.call("mutation", "commands:cancelJob", job_id="real")
        product.until("real", "accepted", "cancel")
        product.submit("too-much")
        product.until("too-much", "refused")
        assert product.read("jobs:get", "too-much")["error"]["message"].endswith(
            " the node says no."
        )
        assert is_signed(node.received[-1], lab.signing)
        node.stop()
    finally:
        adapter.stop()


def is_signed(received: dict[str, Any], jwk: Any) -> bool:
    """Whether the product's signature is over what the node got."""
    protected, signature = received["signature"].split("..")
    signed = signing_input(
        protected, received["operation"], received.get("idempotency_key"), received["body"]
    )
    algorithm = jwt.get_algorithm_by_name("ES256")
    public = algorithm.from_jwk({name: jwk[name] for name in ("kty", "crv", "x", "y")})
    return algorithm.verify(signed, public, jwt.utils.base64url_decode(signature))
