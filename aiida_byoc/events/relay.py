"""The relay: undelivered events to the adapter, in order per job, until the product has them.

Several lanes work side by side; a job is in the hands of one of them at a time. Acknowledgements are cumulative per
job, and may ask for what the product lost; one job's poison stops that job only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import psycopg

from aiida_byoc import crashpoints
from aiida_byoc.contracts.delivery import Acknowledgement, QuarantinedEvent
from aiida_byoc.events import stream
from aiida_byoc.events.stream import Claim, Decision

__all__ = ["BatchRefused", "EventSink", "deliver"]

_LOGGER = logging.getLogger(__name__)


class BatchRefused(Exception):
    """The batch as a whole was refused for what is in it: trying the same again cannot help.

    Attributes:
        problem: name in the problem catalogue; `None` when it was not the adapter that refused (a proxy, perhaps).
    """

    def __init__(self, message: str, problem: str | None = None) -> None:
        self.problem = problem
        super().__init__(message)


class EventSink(Protocol):
    """Where events go."""

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Deliver, or raise; nothing counts as delivered unless it is acknowledged.

        Raises:
            BatchRefused: at least one of the events is poison.
        """


def deliver(connection: psycopg.Connection, sink: EventSink, *, lane: str = "relay") -> int:
    """Deliver one batch; return how many events the product acknowledged or refused for good.

    No lock is held while the sink works: a process hook never waits for the network.

    Args:
        lane: the name of who delivers. Two that run at the same time need two names; one that starts in place of
            another takes its name, and its claims.
    """
    claims = stream.claim(connection, lane)
    if not claims:
        return 0
    crashpoints.reached("relay.claimed")
    try:
        stream.read(connection, claims)
        crashpoints.reached("relay.read")
        answer, strange = _send(sink, claims)
        crashpoints.reached("relay.acknowledged")
        sent = [each for each in claims if each.events]
        decisions = [(each, _decision(connection, each, answer)) for each in sent]
        _complain(sent, answer)
        with connection.transaction():
            noted = stream.settle(connection, lane, decisions)
        # Apart: PostgreSQL checks the foreign key of a row that one transaction changes twice, and would wait for the
        # job's lock, whose holder waits for this row.
        left = claims if noted < len(sent) else [each for each in claims if not each.events]
        if left:
            stream.release(connection, lane, left)
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            stream.release(connection, lane, claims)
        raise
    if strange is not None:
        raise strange
    return sum(
        max(0, decision.to - each.acked) + (decision.quarantine is not None)
        for each, decision in decisions
    )


def _send(sink: EventSink, claims: Sequence[Claim]) -> tuple[Acknowledgement, BatchRefused | None]:
    """Send what was claimed, or of a batch that is refused whole the largest beginning that is taken.

    What was not sent is taken out of the claims. A lone event that is refused stops its job: for good if the adapter
    says so in the words of the contract, for a while if a stranger does, whose refusal is returned too.
    """
    batch = [(each, seq) for each in claims for seq, _ in each.events]
    nothing = Acknowledgement(next_seq={})
    while batch:
        try:
            return sink.events([body for each in claims for _, body in each.events]), None
        except BatchRefused as refusal:
            if len(batch) > 1:
                batch = batch[: len(batch) // 2]
                kept = {(each.job, seq) for each, seq in batch}
                for each in claims:
                    each.events = [one for one in each.events if (each.job, one[0]) in kept]
                continue
            if refusal.problem is None:
                return nothing, refusal
            refused = QuarantinedEvent(
                submission_id=batch[0][0].job, code=refusal.problem, message=str(refusal)
            )
            return Acknowledgement(next_seq={}, quarantined=[refused]), None
    return nothing, None


def _decision(connection: psycopg.Connection, claim: Claim, answer: Acknowledgement) -> Decision:
    """Go where the product is, within what was sent; or back to what it lacks, if that can still be sent."""
    first, last = claim.events[0][0], claim.events[-1][0]
    wanted = answer.next_seq.get(claim.job)
    if wanted is not None and not 1 <= wanted <= claim.latest + 1:
        _LOGGER.warning(
            "Acknowledgement makes no sense event=acknowledgement_ignored submission=%s next_seq=%s latest=%s",
            claim.job,
            wanted,
            claim.latest,
        )
        wanted = None
    to = claim.acked if wanted is None else min(wanted - 1, last)
    refused = _refusal(claim, answer, after=to)
    stuck = refused is None and (wanted is None or wanted <= first)
    missing = (answer.missing_from or {}).get(claim.job)
    if missing is not None and 1 <= missing <= to and stream.keeps(connection, claim.job, missing):
        to, stuck = missing - 1, True
    return Decision(to=to, stuck=stuck, quarantine=refused)


def _refusal(claim: Claim, answer: Acknowledgement, *, after: int) -> QuarantinedEvent | None:
    """The first event of the job that was refused for good, with its `seq` and `id` as the outbox has them."""
    names = {body["id"]: seq for seq, body in claim.events}
    found = [
        (names.get(each.event_id or "", each.seq or 0), each)
        for each in answer.quarantined
        if each.submission_id == claim.job
        or (each.submission_id is None and each.event_id in names)
    ]
    if not found:
        return None
    seq, refused = min(found, key=lambda pair: pair[0])
    if seq not in names.values():
        seq = min((one for one in names.values() if one > after), default=claim.events[-1][0])
    [event_id] = [name for name, one in names.items() if one == seq]
    _LOGGER.error(
        "Event refused, its job's stream stands still event=event_quarantined submission=%s seq=%s code=%s",
        claim.job,
        seq,
        refused.code,
    )
    known = {"submission_id": claim.job, "seq": seq, "event_id": event_id}
    return refused.model_copy(update=known)


def _complain(sent: Sequence[Claim], answer: Acknowledgement) -> None:
    strangers = (answer.next_seq.keys() | (answer.missing_from or {}).keys()) - {
        each.job for each in sent
    }
    if strangers:
        _LOGGER.warning(
            "Acknowledgement of jobs that were not sent event=acknowledgement_ignored count=%s",
            len(strangers),
        )
