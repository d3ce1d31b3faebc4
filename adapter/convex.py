"""What the product is told: projections and heartbeats."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import httpx
from pydantic import TypeAdapter, ValidationError

from adapter.deployment import Deployment, member
from aiida_byoc.contracts import Heartbeat, ProjectionOutcome, ProjectionUpdate
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Convex", "UpdatesRefusedError"]

_HEARTBEAT_TIMEOUT = httpx.Timeout(3)
_log = logging.getLogger(__name__)


class UpdatesRefusedError(Exception):
    """Convex refused the call as a whole, before any update was applied: at least one of them is poison."""


_OUTCOMES = TypeAdapter(list[ProjectionOutcome])


class Convex:
    """Calls the product's mutations; every failure is a problem of the catalogue or `UpdatesRefusedError`."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    async def apply(
        self, node_id: str, updates: Sequence[ProjectionUpdate]
    ) -> list[ProjectionOutcome]:
        """Apply up to 100 updates in one transaction; one outcome per update, in their order.

        Raises:
            UpdatesRefusedError: nothing was applied and repeating the same call cannot help.
            ProblemError: `product-unavailable`; the outcome may be unknown, repeating is safe.
                `epoch-mismatch`; nothing was applied, and nothing will be until the product's operator decides.
        """
        answer = await self._deployment.call(
            "mutation",
            node_id,
            "projections:applyProjections",
            {"updates": [update.wire() for update in updates]},
        )
        if answer.status != "success":
            if answer.errorData is None:
                raise UpdatesRefusedError
            if member(answer.errorData, "code") == "epoch_mismatch":
                raise self._stranger(node_id, member(answer.errorData, "message"))
            raise self._deployment.alert(
                node_id, "The product refused the adapter's call.", answer.errorData
            )
        try:
            outcomes = _OUTCOMES.validate_python(answer.value["outcomes"])
        except (ValidationError, KeyError, TypeError) as error:
            raise self._deployment.alert(node_id, "The product's answer cannot be read.") from error
        if [item.projection_id for item in outcomes] != [item.projection_id for item in updates]:
            raise self._deployment.alert(
                node_id, "The product answered for other updates than were sent."
            )
        return outcomes

    async def answers(self, node_id: str) -> bool:
        """Whether `applyProjections` runs at all: it refuses an empty call in its own words (`errorData`)."""
        answer = await self._deployment.call(
            "mutation", node_id, "projections:applyProjections", {"updates": []}
        )
        return answer.status == "success" or answer.errorData is not None

    async def record_heartbeat(self, node_id: str, heartbeat: Heartbeat, received_at: str) -> None:
        """Store the node's last report; raises `product-unavailable` when that did not work."""
        report = heartbeat.model_dump(mode="json", exclude_none=True)
        args = {"node_id": node_id, "report": report, "received_at": received_at}
        answer = await self._deployment.call(
            "mutation", node_id, "nodes:recordHeartbeat", args, _HEARTBEAT_TIMEOUT
        )
        if answer.status != "success":
            raise self._deployment.alert(
                node_id, "The product refused a heartbeat.", answer.errorData
            )

    @staticmethod
    def _stranger(node_id: str, sentence: str | None) -> ProblemError:
        """Say that the node tells a history that the product's operator has not accepted."""
        error = ProblemError("epoch-mismatch", sentence and f"{sentence}.")
        _log.error(
            "The product does not know this history of a node.",
            extra={"event": "node.epoch_mismatch", "node_id": node_id},
        )
        return error
