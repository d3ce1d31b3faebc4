"""A product that takes events as the adapter does, and fails as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, Acknowledgement, QuarantinedEvent
from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.validation import validated

__all__ = ["Lost", "Product"]


class Lost(Exception):
    """The answer never came."""


class Product:
    """Keeps, per job, which `seq` it has, and every event in the order of arrival.

    Attributes:
        have: by job, what is stored.
        limit: takes at most so many events of each batch and job.
        poison: submissions whose events it refuses for good.
        silent: submissions it says nothing about.
        before: called with each batch before anything is taken; may raise.
        after: called once the batch is taken; may raise, and the answer is lost.
    """

    def __init__(self) -> None:
        self.have: dict[str, set[int]] = {}
        self.arrived: dict[str, list[tuple[int, str]]] = {}
        self.batches: list[list[dict[str, Any]]] = []
        self.limit = MAX_EVENT_BATCH
        self.poison: set[str] = set()
        self.silent: set[str] = set()
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        self.before()
        self.batches.append(batch)
        assert 1 <= len(batch) <= MAX_EVENT_BATCH
        taken: dict[str, int] = {}
        wanted: dict[str, int] = {}
        quarantined = []
        for each in (validated(ExecutionEvent, body) for body in batch):
            job, seq = each.data.submission_id, each.data.seq
            if job in self.silent or taken.get(job, 0) >= self.limit:
                continue
            if job in self.poison:
                quarantined.append(
                    QuarantinedEvent(submission_id=job, seq=seq, code="poison", message="no")
                )
                continue
            self.arrived.setdefault(job, []).append((seq, each.id))
            self.have.setdefault(job, set()).add(seq)
            taken[job] = taken.get(job, 0) + 1
            wanted[job] = seq + 1
        self.after()
        missing = {job: min(lacking) for job in wanted if (lacking := self.lacking(job))}
        return Acknowledgement(
            next_seq=wanted, quarantined=quarantined, missing_from=missing or None
        )

    def lacking(self, job: str) -> set[int]:
        """What it has not, below the newest that it has."""
        have = self.have.get(job, set())
        return set(range(1, max(have, default=0))) - have

    def restore(self, job: str, seq: int) -> None:
        """Be set back to a backup that has nothing of the job after that."""
        self.have[job] = {each for each in self.have[job] if each <= seq}

    @property
    def latest(self) -> dict[str, int]:
        """By job, the newest `seq` it has."""
        return {job: max(have, default=0) for job, have in self.have.items()}

    def order(self, job: str) -> list[int]:
        """The sequence numbers of a job as they arrived."""
        return [seq for seq, _ in self.arrived.get(job, [])]
