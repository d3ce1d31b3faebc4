"""Events in, acknowledgement out: what the product has, and nothing before it has it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapter.auth import NodeIdentity
from adapter.batch import Batch, job_of
from adapter.convex import Convex, UpdatesRefusedError
from aiida_byoc.contracts import Acknowledgement, ProjectionUpdate
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Delivery"]

_IN_FLIGHT = 4
_PATIENCE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Delivery:
    """Applies batches; an event that cannot be applied stops its own job only.

    The product takes updates in any order, and twice, so batches of a node need not wait for each other: what is
    bounded is how much of the product one node may take up.

    Args:
        in_flight: how many batches of one node may be at the product at a time.
        patience: how long a further one waits for its turn, in seconds.
    """

    def __init__(
        self, convex: Convex, *, in_flight: int = _IN_FLIGHT, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self._convex = convex
        self._patience = patience
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(in_flight)
        )

    async def deliver(self, node: NodeIdentity, events: Sequence[Any]) -> Acknowledgement:
        """Project up to 100 events and acknowledge what the product has stored.

        Raises:
            ProblemError: `product-unavailable` when the product could settle none of them, or has enough of this
                node already; `epoch-mismatch` when it knows another history of this node.
        """
        batch = Batch(node, events)
        async with self._place(node.node_id):
            try:
                await self._apply(batch, batch.updates)
            except ProblemError:
                if not batch.settled_any:
                    raise
                # Acknowledge what is known; the relay sends the rest again and then meets the fault.
        acknowledgement = batch.acknowledgement()
        _log.info(
            "The product has a node's events of this many jobs.",
            extra={
                "event": "events.delivered",
                "node_id": node.node_id,
                "count": len(acknowledgement.next_seq),
            },
        )
        return acknowledgement

    @asynccontextmanager
    async def _place(self, node_id: str) -> AsyncIterator[None]:
        places = self._places[node_id]
        try:
            async with asyncio.timeout(self._patience):
                await places.acquire()
        except TimeoutError as error:
            sentence = "Too many batches of this node are on their way to the product."
            raise ProblemError("product-unavailable", sentence) from error
        try:
            yield
        finally:
            places.release()

    async def _apply(self, batch: Batch, updates: Sequence[ProjectionUpdate]) -> None:
        """Apply `updates` in order; halve what Convex refuses as a whole until the poison stands alone."""
        updates = [update for update in updates if not batch.is_stopped(update)]
        if not updates:
            return
        try:
            outcomes = await self._convex.apply(batch.node_id, updates)
        except UpdatesRefusedError:
            if len(updates) > 1:
                middle = len(updates) // 2
                await self._apply(batch, updates[:middle])
                await self._apply(batch, updates[middle:])
            else:
                await self._judge(batch, updates[0])
            return
        for update, outcome in zip(updates, outcomes, strict=True):
            if outcome.outcome == "rejected":
                batch.quarantine(update, outcome.code or "rejected")
            else:
                batch.advance(update, outcome.missing_from)

    async def _judge(self, batch: Batch, update: ProjectionUpdate) -> None:
        """Quarantine a lone refused update, unless the function is what is broken (a deployment under way)."""
        if await self._convex.answers(batch.node_id):
            batch.quarantine(update, "projection-refused")
            return
        _log.error(
            "The product's applyProjections does not run.",
            extra={
                "event": "product.misconfigured",
                "node_id": batch.node_id,
                "submission_id": job_of(update),
            },
        )
        raise ProblemError("product-unavailable")
