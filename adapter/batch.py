"""One request's events: which may be projected, how far each job came, what was set aside and why. No I/O."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapter.auth import NodeIdentity
from adapter.projection import project
from aiida_byoc.contracts import Acknowledgement, ExecutionEvent, ProjectionUpdate
from aiida_byoc.contracts.delivery import QuarantinedEvent
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = ["Batch", "job_of"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_log = logging.getLogger(__name__)


def job_of(update: ProjectionUpdate) -> str:
    """The `submission_id`: what acknowledgements call a job."""
    return update.projection_id.partition(":")[0]


class Batch:
    """The events of one request, read once.

    `updates` holds each job's events in order, up to the job's first fault or gap.
    """

    def __init__(self, node: NodeIdentity, events: Sequence[Any]) -> None:
        self.node_id = node.node_id
        self.updates: list[ProjectionUpdate] = []
        self._tenants = node.tenants
        self._faults: list[QuarantinedEvent] = []
        self._refused: dict[str, QuarantinedEvent] = {}
        self._next_seq: dict[str, int] = {}
        self._missing_from: dict[str, int] = {}
        self._last_read: dict[str, int] = {}
        self._read(events)

    @property
    def settled_any(self) -> bool:
        """Whether the product has decided on any update."""
        return bool(self._next_seq or self._refused)

    def is_stopped(self, update: ProjectionUpdate) -> bool:
        """Whether the product refused an earlier update of the same job."""
        return job_of(update) in self._refused

    def advance(self, update: ProjectionUpdate, missing_from: int | None) -> None:
        """Note that the product has this update and what it lacks below, unless the job stopped before it."""
        if self.is_stopped(update):
            return
        job = job_of(update)
        self._next_seq[job] = update.seq + 1
        if missing_from is None:
            self._missing_from.pop(job, None)
        else:
            self._missing_from[job] = missing_from

    def quarantine(self, update: ProjectionUpdate, code: str) -> None:
        """Set an update aside that the product will never take; its job stops there."""
        if self.is_stopped(update):
            return
        self._refused[job_of(update)] = QuarantinedEvent(
            submission_id=job_of(update),
            seq=update.seq,
            code=code,
            message=f"The product refused the projection: {code}.",
        )

    def acknowledgement(self) -> Acknowledgement:
        """What the node may forget, and what it must set aside.

        A fault counts only once the product has everything before it.
        """
        reached = [fault for fault in self._faults if self._is_reached(fault.submission_id)]
        quarantined = [*self._refused.values(), *reached]
        for event in quarantined:
            _log.warning(
                "An event was quarantined.",
                extra={
                    "event": "event.quarantined",
                    "node_id": self.node_id,
                    "submission_id": event.submission_id,
                    "code": event.code,
                },
            )
        return Acknowledgement(
            next_seq=self._next_seq,
            quarantined=quarantined,
            missing_from=self._missing_from or None,
        )

    def _is_reached(self, job: str | None) -> bool:
        if job is None or job not in self._last_read:
            return True
        return self._next_seq.get(job) == self._last_read[job] + 1

    def _read(self, events: Sequence[Any]) -> None:
        stopped: set[str] = set()
        for raw in events:
            try:
                event = self._admitted(raw)
            except ProblemError as error:
                fault = _fault(raw, error)
                if fault.submission_id is None or fault.submission_id not in stopped:
                    self._faults.append(fault)
                if fault.submission_id is not None:
                    stopped.add(fault.submission_id)
                continue
            job, seq = event.data.submission_id, event.data.seq
            if seq != self._last_read.get(job, seq - 1) + 1:
                stopped.add(job)  # a gap is no fault: the node sends the rest again from there
            if job not in stopped:
                self._last_read[job] = seq
                self.updates.append(project(event))

    def _admitted(self, raw: Any) -> ExecutionEvent:
        event = validated(ExecutionEvent, raw, what="event")
        if event.source != f"/nodes/{self.node_id}":
            raise ProblemError("forbidden", "source must be the node that sends the event.")
        if event.data.tenant_id not in self._tenants:
            raise ProblemError("forbidden", "The node does not serve the tenant of the event.")
        return event


def _fault(raw: Any, error: ProblemError) -> QuarantinedEvent:
    """Report an event that cannot be read, naming as much of it as can be trusted."""
    envelope = raw if isinstance(raw, Mapping) else {}
    data = envelope.get("data")
    data = data if isinstance(data, Mapping) else {}
    job, seq, event_id = data.get("submission_id"), data.get("seq"), envelope.get("id")
    reason = f" {error.errors[0].message}" if error.errors else ""
    return QuarantinedEvent(
        submission_id=job if isinstance(job, str) and _UUID.fullmatch(job) else None,
        seq=seq if isinstance(seq, int) and not isinstance(seq, bool) else None,
        event_id=event_id if isinstance(event_id, str) and len(event_id) <= 128 else None,
        code=error.kind.name,
        message=f"{error.detail}{reason}",
    )
