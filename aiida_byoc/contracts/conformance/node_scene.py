"""What the kit needs to try a node: an adapter that it plays, and a command that the node's policy lets run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from aiida_byoc.contracts.conformance.musts import hold, until
from aiida_byoc.contracts.conformance.played_adapter import Event, PlayedAdapter
from aiida_byoc.contracts.delivery import Command, Verdict
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.lifecycle import SUCCESSORS, ExecutionState
from aiida_byoc.contracts.problems import PROBLEM_BASE
from aiida_byoc.contracts.validation import validated

__all__ = ["NodeScene", "NodeTestSettings", "ended", "rejected"]


class NodeTestSettings(BaseModel):
    """What the kit must know of a node.

    Attributes:
        node_id: the node's name.
        command: a SubmitJobCommand that the node's policy lets run; the kit gives it other job names.
        listen: host and port where the node believes its adapter to be; the kit plays it there.
        other_tenant_id: a further tenant that the policy names.
        patience_seconds: how long the node may take for a decision or a delivery, with its back-off.
    """

    model_config = ConfigDict(extra="forbid")

    node_id: Name
    command: dict[str, Any]
    listen: str = "127.0.0.1:8790"
    other_tenant_id: Name | None = None
    patience_seconds: float = 60.0

    @classmethod
    def load(cls, path: Path) -> NodeTestSettings:
        """Read a JSON file."""
        return cls.model_validate_json(path.read_bytes())


class NodeScene:
    """One node under test."""

    def __init__(self, settings: NodeTestSettings, adapter: PlayedAdapter) -> None:
        self.settings, self.adapter = settings, adapter
        self.tenant_id: str = settings.command["tenant_id"]
        self._numbers = itertools.count(1)

    def command(self, **changes: Any) -> dict[str, Any]:
        """The SubmitJobCommand of a job of its own."""
        return {**self.settings.command, "job_id": f"kit-{uuid4()}", **changes}

    def submit(self, body: dict[str, Any], *, key: str | None = None, **changes: Any) -> Any:
        """Hand a submission out and return the verdict; keywords change the envelope."""
        return self._decided(
            "submit", body["job_id"], idempotency_key=key or str(uuid4()), body=body, **changes
        )

    def cancel(self, job_id: str, **changes: Any) -> Any:
        """Hand a cancel out and return the verdict."""
        kept = ("schema_version", "tenant_id", "workspace_id", "management_node_id", "requested_by")
        body = {name: value for name, value in self.settings.command.items() if name in kept}
        return self._decided("cancel", job_id, body={**body, "job_id": job_id, **changes})

    def inspect(self, job_id: str, tenant_id: str | None = None) -> Any:
        """Hand an inspection out and return the verdict."""
        changes = {} if tenant_id is None else {"tenant_id": tenant_id}
        return self._decided("inspect", job_id, **changes)

    def until(self, condition: Any, what: str) -> Any:
        """The first true value of the condition, with the node's patience."""
        return until(condition, self.settings.patience_seconds, what)

    def story(self, job_id: str) -> list[Event]:
        """The newest of each event that the node told of a job so far, by seq."""
        told = {
            event["data"]["seq"]: event
            for events in self.adapter.told_of(job_id)
            for event in events
        }
        return [told[seq] for seq in sorted(told)]

    def _decided(self, operation: str, about: str, /, **fields: Any) -> Any:
        command = {
            "command_id": str(uuid4()),
            "operation": operation,
            "tenant_id": self.tenant_id,
            "job_id": about,
            **fields,
        }
        validated(Command, command)
        self.adapter.hand_out(command)
        verdict = self.until(
            lambda: self.adapter.verdicts.get(command["command_id"]),
            f"the verdict on a {operation}",
        )
        validated(Verdict, verdict)
        return verdict


def ended(story: list[Event]) -> list[Event]:
    """The story, if it has come to its end."""
    return story if story and not SUCCESSORS[ExecutionState(story[-1]["data"]["state"])] else []


def rejected(verdict: Any, name: str) -> str:
    """Hold that a verdict refuses with this problem."""
    said = verdict.get("problem", {}).get("type", "").removeprefix(PROBLEM_BASE)
    hold(
        (verdict["outcome"], said) == ("rejected", name),
        f"{verdict['outcome']} {said}".strip() + f", not rejected {name}",
    )
    return f"rejected {name}"
