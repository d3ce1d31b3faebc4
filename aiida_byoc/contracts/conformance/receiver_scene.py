"""What the kit needs to try a product: nodes of it, their tokens, and who may accept an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from aiida_byoc.contracts.conformance.musts import NotTested, hold
from aiida_byoc.contracts.conformance.receiver_cases import Accept
from aiida_byoc.contracts.conformance.wire import Wire
from aiida_byoc.contracts.identity import Name

__all__ = ["ReceiverScene", "ReceiverSettings", "Served"]

Update = dict[str, Any]


class Served(BaseModel):
    """A node of the product, and the token that the adapter has for it (scope `projections:write`)."""

    model_config = ConfigDict(extra="forbid")

    node_id: Name
    service_token: str


class ReceiverSettings(BaseModel):
    """What the product must know of the kit, and the kit of it; tokens are good for all of the run.

    Attributes:
        tenant_id: a tenant that all the nodes serve.
        nodes: the first for most; one more for each story about epochs, which nobody has told any epoch of.
        admin_key: accepts epochs (`nodes:acceptEpoch`).
        user_token: of a member of the tenant, no service's.
        foreign_tenant_id: a tenant that no node here serves.
    """

    model_config = ConfigDict(extra="forbid")

    tenant_id: Name
    nodes: list[Served] = Field(min_length=1)
    admin_key: str | None = None
    user_token: str | None = None
    foreign_tenant_id: Name | None = None

    @classmethod
    def load(cls, path: Path) -> ReceiverSettings:
        """Read a JSON file."""
        return cls.model_validate_json(path.read_bytes())


class ReceiverScene:
    """One product under test."""

    def __init__(self, url: str, settings: ReceiverSettings) -> None:
        self.settings = settings
        self.node, *self._fresh = settings.nodes
        self._wire = Wire(url)

    def fresh(self) -> Served:
        """A node that told nothing yet; the MUST is not tested when there is none left."""
        if not self._fresh:
            raise NotTested("give one more of `nodes`, that told no epoch yet")
        return self._fresh.pop(0)

    def base(self, node: Served) -> Update:
        """What the updates of a new job have in common."""
        return {
            "schema_version": "1",
            "tenant_id": self.settings.tenant_id,
            "workspace_id": "conformance",
            "job_id": f"job-{uuid4()}",
            "node_id": node.node_id,
            "attempt": 1,
            "occurred_at": "2026-03-01T12:00:00.000Z",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "submission": str(uuid4()),
        }

    def update(self, seq: int = 1, base: Update | None = None, **changes: Any) -> Update:
        """An update of a job of its own, or of a known one."""
        shown = {"seq": seq, "state": "running", "execution_state": "running"}
        update = {**(base or self.base(self.node)), **shown, **changes}
        submission = update.pop("submission")
        return {**update, "projection_id": f"{submission}:{update['seq']}"}

    def apply(self, updates: list[Update], token: str | None = None) -> Any:
        """The body of the answer to `applyProjections`."""
        bearer = self.node.service_token if token is None else token
        return self._call(
            "mutation", "projections:applyProjections", {"updates": updates}, f"Bearer {bearer}"
        )

    def outcomes(self, updates: list[Update], token: str | None = None) -> list[str]:
        """What becomes of each update: outcome, or the code of a rejection."""
        answer = self.apply(updates, token)
        hold(
            answer["status"] == "success",
            f"the call failed whole: {answer.get('errorData') or answer}",
        )
        return [one.get("code", one["outcome"]) for one in answer["value"]["outcomes"]]

    def accept(self, node: Served, step: Accept) -> None:
        """Let the operator accept an epoch."""
        if self.settings.admin_key is None:
            raise NotTested("give `admin_key`: it accepts epochs")
        before = {"before": step.before} if step.before else {}
        args = {"node_id": node.node_id, "epoch": step.epoch, **before}
        answer = self._call(
            "mutation", "nodes:acceptEpoch", args, f"Convex {self.settings.admin_key}"
        )
        hold(answer["status"] == "success", "the epoch was not accepted")

    def shown(self, job_id: str) -> Any:
        """The job as a member of the tenant sees it."""
        if self.settings.user_token is None:
            raise NotTested("give `user_token`: of a member of the tenant")
        args = {"tenant_id": self.settings.tenant_id, "job_id": job_id}
        answer = self._call("query", "jobs:get", args, f"Bearer {self.settings.user_token}")
        hold(answer["status"] == "success", f"jobs:get failed: {answer.get('errorData')}")
        return answer["value"]

    def _call(self, kind: str, path: str, args: Update, authorization: str) -> Any:
        headers = {} if authorization == "Bearer " else {"Authorization": authorization}
        call = {"path": path, "args": args, "format": "json"}
        return self._wire.ask("POST", f"/api/{kind}", call, headers=headers).json
