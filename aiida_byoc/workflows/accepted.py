"""What every work chain of an accepted command has in common: its identity, one child at a time, its end."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from aiida.common.links import LinkType
from aiida.engine import ProcessSpec
from aiida.manage import get_manager
from aiida.orm import Dict, ProcessNode
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.brokers.postgres import PostgresBroker
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from aiida_byoc.events.hooks import EmitsExecutionEvents, transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.workflows.outcome import CANCELLED_STATUS, OPEN, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AcceptedWork", "node_uuid"]

_ENDED = {ProcessState.FINISHED, ProcessState.EXCEPTED, ProcessState.KILLED}


def node_uuid(submission_id: str) -> uuid.UUID:
    """The AiiDA UUID of a job's work chain: the same for every try to create it, so the database admits one."""
    return uuid.uuid5(uuid.UUID(submission_id), "work chain")


class AcceptedWork(EmitsExecutionEvents):
    """Mixin over `WorkChain`: the process that a command in the ledger becomes."""

    @classmethod
    def define_accepted(cls, spec: ProcessSpec) -> None:
        """Add what every such work chain is given."""
        spec.input("command", valid_type=Dict, help="The accepted SubmitJobCommand.")
        spec.input("placement", valid_type=Dict, help="What the node's policy decided for it.")
        spec.input(
            "submission_id", valid_type=str, non_db=True, help="The job in the node's ledger."
        )
        spec.exit_code(
            CANCELLED_STATUS,
            "ERROR_CANCELLED",
            message="The job was cancelled before its next process was submitted.",
        )

    @property
    def command(self) -> SubmitJobCommand:
        """The command, from provenance."""
        return validated(SubmitJobCommand, self.inputs["command"].get_dict())

    def get_or_create_db_record(self) -> ProcessNode:
        # `uuid` is unique in the database: a second work chain for the same submission cannot be stored.
        node = super().get_or_create_db_record()
        node.backend_entity.bare_model.uuid = node_uuid(self.submission_id)
        return node

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        super().load_instance_state(saved_state, load_context)
        if self.is_cancelled():  # while no worker had it, so no call reached it
            self.kill_soon()

    def submitted(self, label: str, link: LinkType) -> ProcessNode | None:
        """The child of that label, if it was submitted before a crash.

        A worker that dies between a child's submission and its own checkpoint runs the step again (measured: two
        children).
        """
        links = self.node.base.links.get_outgoing(link_type=link, link_label_filter=label)
        found = links.first()
        if found is None:
            return None
        child: ProcessNode = found.node
        self.report(f"taking up {child.process_label}<{child.pk}> again")
        return child

    @contextlib.contextmanager
    def one_commit(self) -> Iterator[None]:
        """The child's node, checkpoint and task in one transaction, where the broker can join it.

        With any other broker, a worker that dies in between leaves a node without a task.
        """
        joins = isinstance(get_manager().get_broker(), PostgresBroker)
        commit: Any = transaction(self.node.backend) if joins else contextlib.nullcontext()
        with commit:
            yield
        crashpoints.reached("child.submitted")

    def report_of_transition(self) -> Report | None:
        """The job ends with its work chain, in the same transaction, unless Slurm has the last word."""
        state = self.state
        if state not in _ENDED:
            return None
        report = outcome(self.node, state, is_cancelled=self.is_cancelled())
        if report is None:
            self.node.base.extras.set(OPEN, True)
        return report
