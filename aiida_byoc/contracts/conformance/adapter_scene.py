"""What the kit needs to try an adapter: who it may be, a node that it plays, a product that it plays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from aiida_byoc.contracts.conformance.musts import Broken, NotTested, until
from aiida_byoc.contracts.conformance.played_node import PlayedNode
from aiida_byoc.contracts.conformance.played_product import PlayedProduct
from aiida_byoc.contracts.conformance.wire import Answer, Wire
from aiida_byoc.contracts.identity import Name

__all__ = ["BATCH", "AdapterScene", "AdapterSettings", "Foreign", "event"]

BATCH = "application/cloudevents-batch+json"


class Foreign(BaseModel):
    """Another tenant of the adapter, and a node that serves it and not ours."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: Name
    client_token: str
    node_id: Name


class AdapterSettings(BaseModel):
    """What an adapter must know of the kit, and the kit of it; tokens are good for all of the run.

    Attributes:
        node_id: the node that the kit plays; nobody else may speak as it.
        tenant_id: a tenant that it serves.
        client_token: of the tenant, with all scopes.
        powerless_token: of the tenant, with no scope.
        foreign: somebody else.
        product: host and port where the adapter believes its product to be; the kit plays it there.
        patience_seconds: how long the adapter waits for a verdict, and a little more; all else may take as long.
    """

    model_config = ConfigDict(extra="forbid")

    node_id: Name
    node_token: str
    tenant_id: Name
    client_token: str
    powerless_token: str | None = None
    foreign: Foreign | None = None
    product: str | None = None
    patience_seconds: float = 20.0

    @classmethod
    def load(cls, path: Path) -> AdapterSettings:
        """Read a JSON file."""
        return cls.model_validate_json(path.read_bytes())


class AdapterScene:
    """One adapter under test."""

    def __init__(
        self, url: str, settings: AdapterSettings, product: PlayedProduct | None = None
    ) -> None:
        self.url, self.settings = url, settings
        self.wire = Wire(url)
        self._product = product
        self._node: PlayedNode | None = None
        self._pool = ThreadPoolExecutor(8)

    def connect(self) -> None:
        """Let the node come; it stays until the end."""
        if self._node is None:
            token = self.settings.node_token
            self._node = PlayedNode(self.url, self.settings.node_id, lambda: token)

    @property
    def node(self) -> PlayedNode:
        """The node that is there."""
        if self._node is None:
            raise NotTested("the node is not there yet")
        return self._node

    @property
    def product(self) -> PlayedProduct:
        """The product that is played; the MUST is not tested without one."""
        if self._product is None:
            raise NotTested("give `product`: where the adapter believes its product to be")
        return self._product

    @property
    def foreign(self) -> Foreign:
        """Somebody else; the MUST is not tested without."""
        if self.settings.foreign is None:
            raise NotTested("give `foreign`: another tenant, its token and its node")
        return self.settings.foreign

    @property
    def heard(self) -> list[Answer]:
        """Every answer of the adapter so far."""
        return self.wire.heard + (self._node.heard if self._node else [])

    def command(self, **changes: Any) -> dict[str, Any]:
        """A correct SubmitJobCommand with a job_id of its own."""
        return {
            "schema_version": "1",
            "tenant_id": self.settings.tenant_id,
            "workspace_id": "conformance",
            "job_id": f"job-{uuid4()}",
            "management_node_id": self.settings.node_id,
            "execution_profile": {"queue_name": "main"},
            "resource_shape": {"cpu": 1, "memory_mib": 256, "walltime_seconds": 60},
            "workload": {"kind": "container", "image": "localhost/conformance:1", "argv": ["true"]},
            "requested_by": {"user_id": "conformance"},
            **changes,
        }

    def submit(
        self,
        command: Any,
        *,
        key: str | None = None,
        node_id: str | None = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Submit as a client does, with a fresh key unless one is given; an empty one is left out."""
        named = {} if key == "" else {"Idempotency-Key": f'"{key or uuid4()}"'}
        path = f"/v1/nodes/{node_id or self.settings.node_id}/jobs"
        return self.wire.ask(
            "POST",
            path,
            command,
            token=token or self.settings.client_token,
            headers={**named, **(headers or {})},
        )

    def cancel(self, named: str, /, node_id: str | None = None, **changes: Any) -> Answer:
        """Cancel as a client does."""
        kept = ("schema_version", "tenant_id", "workspace_id", "management_node_id", "requested_by")
        body = {name: value for name, value in self.command().items() if name in kept}
        path = f"/v1/nodes/{node_id or self.settings.node_id}/jobs/{named}/cancel"
        return self.wire.ask(
            "POST", path, {**body, "job_id": named, **changes}, token=self.settings.client_token
        )

    def inspect(
        self, job_id: str, *, node_id: str | None = None, token: str | None = None
    ) -> Answer:
        """Ask for the live state as a client does."""
        path = f"/v1/nodes/{node_id or self.settings.node_id}/jobs/{job_id}"
        return self.wire.ask("GET", path, token=token or self.settings.client_token)

    def as_node(self, path: str, body: object, **headers: str) -> Answer:
        """POST as the node does; underscores in a header's name are hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        whole = f"/v1/nodes/{self.settings.node_id}{path}"
        return self.wire.ask("POST", whole, body, token=self.settings.node_token, headers=sent)

    def deliver(self, *events: Any) -> Answer:
        """Deliver a batch as the node does."""
        return self.as_node("/events", list(events), Content_Type=BATCH)

    def event(self, job: str, seq: int, **changes: Any) -> dict[str, Any]:
        """An event of the node about the submission; keywords change `data`."""
        return event(self.settings.node_id, self.settings.tenant_id, job, seq, **changes)

    def aside(self, call: Callable[..., Answer], *arguments: Any, **named: Any) -> Future[Answer]:
        """Ask without waiting."""
        return self._pool.submit(call, *arguments, **named)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value of the condition, with the adapter's patience."""
        return until(condition, self.settings.patience_seconds, what)

    def in_time(self, asked: Future[Answer]) -> Answer:
        """The answer, once it is there."""
        try:
            return asked.result(self.settings.patience_seconds + 10)
        except TimeoutError:
            raise Broken("no answer came") from None

    def stop(self) -> None:
        """Let the node go."""
        if self._node:
            self._node.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)


def event(node_id: str, tenant: str, job: str, seq: int, /, **changes: Any) -> dict[str, Any]:
    """An ExecutionEvent of a running job."""
    when = "2026-02-15T10:00:00.000Z"
    data = {
        "tenant_id": tenant,
        "workspace_id": "conformance",
        "job_id": f"job-{job}",
        "submission_id": job,
        "seq": seq,
        "attempt": 1,
        "state": "running",
        "occurred_at": when,
        "trace_id": "a" * 32,
        **changes,
    }
    return {
        "specversion": "1.0",
        "id": f"{job}-{seq}",
        "source": f"/nodes/{node_id}",
        "type": f"org.aiida-byoc.execution.{data['state']}.v1",
        "subject": data["job_id"],
        "time": when,
        "datacontenttype": "application/json",
        "data": data,
    }
