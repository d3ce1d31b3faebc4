"""Process hooks: what AiiDA's state machine does becomes an event, in the transaction of the state itself.

AiiDA commits each attribute by itself, so an event written after a transition is missing when the worker dies in
between (measured: at 8 of 32 crash points; inside the transaction at 0 of 18). The rules that keep this safe:

- `update_outputs` may commit, so it runs before the transaction opens;
- nothing is awaited inside: all coroutines of a worker share one session;
- the state broadcast leaves after the commit, so nobody hears of a state that is rolled back.

The classes here are mixins: AiiDA re-imports the process class from the checkpoint, so overridden methods are the only
hooks that survive a daemon restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from aiida.common.links import LinkType
from aiida.orm import WorkflowNode
from aiida.orm.entities import EntityTypes
from aiida.orm.utils.links import LinkTriple
from plumpy.exceptions import PersistenceError

from aiida_byoc.arrays.cancelled import Ranges, cancelled_tasks
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import checkpoints, outbox, standing
from aiida_byoc.events.outbox import Report

if TYPE_CHECKING:
    from aiida.engine import Process as _Process  # the other base of every class that mixes this in
    from plumpy.process_states import State
else:
    _Process = object

__all__ = ["EmitsExecutionEvents", "transaction"]

_OUTPUT_LINKS = (LinkType.CREATE, LinkType.RETURN)


@contextlib.contextmanager
def transaction(storage: Any) -> Iterator[psycopg.Connection]:
    """Open (or join) AiiDA's transaction; yield the psycopg connection that carries it.

    AiiDA must not nest its own `transaction()`: the inner one would commit the outer one's work.
    """
    if storage.in_transaction:
        yield _connection(storage)
        return
    with storage.transaction():
        yield _connection(storage)


def _connection(storage: Any) -> psycopg.Connection:
    connection = storage.get_session().connection().connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise TypeError("execution events need a profile on PostgreSQL (storage core.psql_dos)")
    return connection


class EmitsExecutionEvents(_Process):
    """Mixin over `WorkChain` and `CalcJob`, for processes with the input `submission_id`."""

    _communicator: Any
    _linked_outputs: frozenset[str] | None = None

    @property
    def submission_id(self) -> str:
        """The job in the ledger that this process works for."""
        identifier: str = self.inputs["submission_id"]
        return identifier

    def is_cancelled(self) -> bool:
        """Whether somebody asked for the job's end, by the ledger as it is now."""
        with transaction(self.node.backend) as connection:
            return standing.is_cancelled(connection, self.submission_id)

    def cancelled_tasks(self) -> Ranges:
        """The tasks of the job that are not wanted any more, by the ledger as it is now."""
        with transaction(self.node.backend) as connection:
            return cancelled_tasks(connection, self.submission_id)

    def kill_soon(self) -> None:
        """Have the event loop kill this process, as a call from outside does that may never have reached it."""
        self._schedule_rpc(self.kill, msg_text="the job was cancelled")

    def report_of_transition(self) -> Report | None:
        """What the state just entered means for the job; `None` when it means nothing."""
        return None

    def emit(self, report: Report) -> None:
        """Write an event now, in a transaction of its own or the one that is open.

        What a held job reaches in Slurm is told once it goes on (`standing.go_on`).
        """
        with transaction(self.node.backend) as connection:
            job = standing.locked(connection, self.submission_id)
            if job is None or job.state != ExecutionState.HELD or job.hold is None:
                outbox.append(connection, self.submission_id, report)

    def _save_checkpoint(self) -> None:
        if self._enable_persistence and not self.has_terminated():
            try:
                checkpoints.save(self)
            except PersistenceError:  # AiiDA goes on as well: the next one may succeed
                self.logger.exception("a worker that dies now loses the latest step")

    def encode_input_args(self, inputs: dict[str, Any]) -> str:
        return checkpoints.dump(inputs)

    def decode_input_args(self, encoded: str) -> dict[str, Any]:
        inputs: dict[str, Any] = checkpoints.load(encoded)
        return inputs

    def update_outputs(self) -> None:
        """Link what is new among the outputs, in one commit.

        AiiDA asks at every transition for the links it has made, and of each new one whether it is the second of its
        label or closes a circle. This object knows its labels once it has asked for them, and what a calculation
        creates is new, so it is in no circle.
        """
        outputs = self._flat_outputs()
        returns = isinstance(self.node, WorkflowNode)
        known = self._linked_outputs or frozenset()
        new = {label: output for label, output in outputs.items() if label not in known}
        if new and (self._linked_outputs is None or any(each.is_stored for each in new.values())):
            # There may be some of an earlier worker's; AiiDA itself links what it has fetched.
            links = self.node.base.links.get_outgoing(link_type=_OUTPUT_LINKS, only_uuid=True)
            known = frozenset(links.all_link_labels())
            self._linked_outputs = known
            new = {label: output for label, output in new.items() if label not in known}
        if not new or self.metadata.store_provenance is False:
            return
        if any(output.is_stored != returns for output in new.values()):
            super().update_outputs()  # stores what it may, and says what it may not
        elif returns:
            rows = [
                {
                    "input_id": self.node.pk,
                    "output_id": output.pk,
                    "label": label,
                    "type": LinkType.RETURN.value,
                }
                for label, output in new.items()
            ]
            self.node.backend.bulk_insert(EntityTypes.LINK, rows)
        else:
            with transaction(self.node.backend):
                for label, output in new.items():
                    triple = LinkTriple(self.node, LinkType.CREATE, label)
                    output.base.links.incoming_cache.append(triple)
                    output.store()
        self._linked_outputs = frozenset(outputs)

    def on_entered(self, from_state: State | None) -> None:
        storage = self.node.backend
        if (
            storage.in_transaction
        ):  # the launcher's: node, checkpoint, ledger and event are one commit
            super().on_entered(from_state)
            return
        with contextlib.suppress(
            ValueError
        ):  # reported by super, which sets the state all the same
            self.update_outputs()
        communicator: Any = self._communicator
        self._communicator = None
        try:
            with transaction(storage) as connection:
                super().on_entered(from_state)
                report = self.report_of_transition()
                if report is not None:
                    outbox.append(connection, self.submission_id, report)
                elif self.has_terminated():  # what has ended holds no job any more
                    standing.go_on(connection, self.submission_id)
        finally:
            self._communicator = communicator
        if communicator is not None:
            before = from_state.LABEL.value if from_state is not None else None
            subject = f"state_changed.{before}.{self.state.value}"
            try:
                communicator.broadcast_send(body=None, sender=self.pid, subject=subject)
            except (
                Exception
            ):  # a hint for whoever waits; the state is committed, and waiters poll as well
                self.logger.warning("the broadcast %s was not sent", subject, exc_info=True)

    def on_paused(self, msg: str | None = None) -> None:
        with transaction(self.node.backend) as connection:
            super().on_paused(msg)
            report = Report(
                state=ExecutionState.HELD,
                occurred_at=datetime.now(UTC),
                reason=msg or f"{type(self).__name__}<{self.pid}> was paused by an operator",
            )
            outbox.append(connection, self.submission_id, report)

    def on_playing(self) -> None:
        with transaction(self.node.backend) as connection:
            super().on_playing()
            # AiiDA saves one when it pauses, and none here: a worker that died now would load the process paused.
            self._save_checkpoint()
            standing.go_on(connection, self.submission_id)
