"""A deployment to talk to over HTTP: the lab's server, or with `CONVEX_URL` a real one.

A real one needs this repository's functions deployed, and besides:
    CONVEX_DEPLOY_KEY         a deploy or admin key that may run internal mutations and act as users
    BYOC_PRODUCT_ISSUER       `iss` of users' tokens, as set in the deployment
    BYOC_PRODUCT_SIGNING_JWK  path of the private ES256 key as a JWK with `kid`; the deployment knows its public half
    BYOC_SERVICE_ISSUER, BYOC_SERVICE_SIGNING_JWK  the same for the adapter's tokens
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from lab import convex, process
from lab.credentials import make_signing_jwk
from lab.paths import LabPaths

REAL_ENVIRONMENT = (
    "CONVEX_DEPLOY_KEY",
    "BYOC_PRODUCT_ISSUER",
    "BYOC_PRODUCT_SIGNING_JWK",
    "BYOC_SERVICE_ISSUER",
    "BYOC_SERVICE_SIGNING_JWK",
)
SERVICE_SCOPE = "projections:write heartbeats:write registry:read registry:write"
CONTENTION_DEADLINE = 60.0
CONTENTION_PAUSE = 0.1


@dataclass(frozen=True)
class Signer:
    """An issuer with its private key."""

    iss: str
    key: ec.EllipticCurvePrivateKey
    kid: str

    @classmethod
    def generate(cls, iss: str) -> Signer:
        return cls(iss, ec.generate_private_key(ec.SECP256R1()), uuid.uuid4().hex)

    @classmethod
    def load(cls, iss: str, path: Path) -> Signer:
        jwk = json.loads(path.read_text())
        return cls(iss, ECAlgorithm(ECAlgorithm.SHA256).from_jwk(jwk), jwk["kid"])

    @property
    def issuer(self) -> convex.Issuer:
        jwk = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return convex.Issuer(
            iss=self.iss,
            jwks={"keys": [{**jwk, "kid": self.kid, "alg": "ES256", "use": "sig"}]},
        )

    def token(self, subject: str, *, lifetime: float = 300, **claims: object) -> str:
        """A token as Convex wants it; a claim of None is left out."""
        now = int(time.time())
        payload = {
            "iss": self.iss,
            "sub": subject,
            "aud": "convex",
            "iat": now,
            "exp": int(now + lifetime),
            **claims,
        }
        present = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(present, self.key, "ES256", headers={"kid": self.kid, "typ": "JWT"})


@dataclass(frozen=True)
class Deployment:
    """A deployment and the keys of those who may talk to it."""

    convex: convex.Convex
    product: Signer
    service: Signer
    client: httpx.Client

    def post(
        self, route: str, body: object, authorization: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.client.post(route, json=body, headers=headers, **options)

    def call(
        self, kind: str, path: str, args: Mapping[str, Any], authorization: str | None = None
    ) -> dict[str, Any]:
        """The body of a 200, again while the deployment answers that it is too busy."""
        deadline = time.monotonic() + CONTENTION_DEADLINE
        while True:
            body = {"path": path, "args": args, "format": "json"}
            response = self.post(f"/api/{kind}", body, authorization)
            if response.status_code not in (429, 503) or time.monotonic() > deadline:
                break
            time.sleep(CONTENTION_PAUSE)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    @staticmethod
    def error_code(answer: Mapping[str, Any]) -> str | None:
        """The code of an answer that must be an error; None where it is no refusal of ours."""
        assert answer["status"] == "error", answer
        return answer.get("errorData", {}).get("code")

    @property
    def admin(self) -> str:
        return f"Convex {self.convex.admin_key}"


@dataclass
class Tenant:
    """A tenant of its own for one test, with an owner (`user`), a member without further rights, and a node."""

    deployment: Deployment
    suffix: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        self.tenant_id = f"tenant-{self.suffix}"
        self.node_id = f"node-{self.suffix}"
        self.user_id = f"user-{self.suffix}"
        self.member_id = f"member-{self.suffix}"
        owned = {"tenant_ids": [self.tenant_id], "owner": self.tenant_id}
        self.seeds = {
            "tenants": [{"tenant_id": self.tenant_id}],
            "memberships": [
                {
                    "tenant_id": self.tenant_id,
                    "token_identifier": f"{self.deployment.product.iss}|{subject}",
                    "role": role,
                }
                for subject, role in [(self.user_id, "owner"), (self.member_id, "member")]
            ],
            "nodes": [{"node_id": self.node_id, **owned}],
        }
        admin = self.deployment.admin
        answer = self.deployment.call("mutation", "tenancy:seed", self.seeds, admin)
        assert answer["value"] == {"changed": 6}, answer

    @property
    def user(self) -> str:
        return f"Bearer {self.deployment.product.token(self.user_id)}"

    @property
    def member(self) -> str:
        return f"Bearer {self.deployment.product.token(self.member_id)}"

    def service(self, **claims: object) -> str:
        defaults = {"scope": SERVICE_SCOPE, "node_id": self.node_id}
        return f"Bearer {self.deployment.service.token('adapter', **(defaults | claims))}"

    def query(self, path: str, **args: Any) -> dict[str, Any]:
        return self.deployment.call("query", path, {"tenant_id": self.tenant_id} | args, self.user)

    def manage(self, kind: str, path: str, **args: Any) -> dict[str, Any]:
        """Call a function of the tenant as its owner; the whole answer."""
        return self.deployment.call(kind, path, {"tenant_id": self.tenant_id} | args, self.user)

    def apply(self, *updates: Mapping[str, Any]) -> list[str]:
        args = {"updates": updates}
        answer = self.deployment.call(
            "mutation", "projections:applyProjections", args, self.service()
        )
        assert answer["status"] == "success", answer
        return [one.get("code", one["outcome"]) for one in answer["value"]["outcomes"]]

    def update(self, seq: int = 1, **fields: Any) -> dict[str, Any]:
        """An update of job `j1`."""
        return {
            "schema_version": "1",
            "projection_id": f"00000000-0000-4000-8000-{self.suffix}:{seq}",
            "tenant_id": self.tenant_id,
            "workspace_id": "w1",
            "job_id": "j1",
            "node_id": self.node_id,
            "seq": seq,
            "state": "queued",
            "execution_state": "queued",
            "attempt": 1,
            "occurred_at": "2026-03-01T12:00:00.000Z",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            **fields,
        }

    def pages(self, path: str, size: int, **args: Any) -> list[dict[str, Any]]:
        """The items of all pages."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            options = {"numItems": size, "cursor": cursor}
            page = self.query(path, paginationOpts=options, **args)["value"]
            items += page["page"]
            if page["isDone"]:
                return items
            cursor = page["continueCursor"]


@dataclass
class Lab:
    """Starts servers in a lab directory and ends them."""

    paths: LabPaths
    product: Signer
    service: Signer
    env: Mapping[str, str] = field(default_factory=dict)
    signing: Mapping[str, str] = field(default_factory=make_signing_jwk)

    def start(self) -> tuple[convex.Convex, process.Daemon]:
        """Start a server with the lab's issuers; it need not be ready yet."""
        started: list[process.Daemon] = []

        def spawn(name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
            started.append(process.spawn(self.paths, name, argv, env={**env, **self.env}))

        served = convex.start(
            spawn,
            port=self.paths.ports("convex")[0],
            admin_key="an-admin-key",
            product_issuer=self.product.issuer,
            service_issuer=self.service.issuer,
            signing_key=self.signing,
        )
        return served, started[0]

    def ready(self) -> tuple[convex.Convex, process.Daemon]:
        """Start a server and wait until it answers."""
        served, daemon = self.start()
        process.wait_until(partial(convex.ready, served), 30, "the functions", needs=[daemon])
        return served, daemon


@pytest.fixture(scope="session")
def new_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def create(**env: str) -> Lab:
        paths = LabPaths(tmp_path_factory.mktemp("lab") / "root")
        product = Signer.generate("https://product.test")
        labs.append(Lab(paths, product, Signer.generate("https://adapter.test"), env))
        return labs[-1]

    yield create
    for lab in labs:
        process.sweep(lab.paths)
        lab.paths.discard()


@pytest.fixture(scope="session")
def real_url() -> str | None:
    return os.environ.get("CONVEX_URL")


@pytest.fixture(scope="session")
def deployment(real_url: str | None, new_lab: Callable[..., Lab]) -> Iterator[Deployment]:
    if real_url is None:
        lab = new_lab()
        served, _ = lab.ready()
        product, service = lab.product, lab.service
    else:
        missing = [name for name in REAL_ENVIRONMENT if not os.environ.get(name)]
        assert not missing, f"CONVEX_URL is set, but not {', '.join(missing)}"
        key, *values = (os.environ[name] for name in REAL_ENVIRONMENT)
        product = Signer.load(values[0], Path(values[1]))
        service = Signer.load(values[2], Path(values[3]))
        served = convex.Convex(
            url=real_url, site_url=os.environ.get("CONVEX_SITE_URL", ""), admin_key=key
        )
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield Deployment(served, product, service, client)


@pytest.fixture
def tenant(deployment: Deployment) -> Tenant:
    return Tenant(deployment)


@pytest.fixture
def rival(deployment: Deployment) -> Tenant:
    return Tenant(deployment)
