"""`byoc.workchain`: the story of an accepted work chain that the node's owner approved, whatever plugin it comes from.

The approved work chain runs as the one child of this one, which has the identity, the events and the end that every
accepted job has.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiida.common import EntryPointError
from aiida.common.links import LinkType
from aiida.engine import ExitCode, ProcessSpec, ToContext, WorkChain
from aiida.orm import Data
from aiida.plugins import WorkflowFactory

from aiida_byoc.commands.placement import WorkchainPlacement
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.commands import SubmitJobCommand, WorkchainWorkload
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events.outbox import Report
from aiida_byoc.workflows.accepted import AcceptedWork
from aiida_byoc.workflows.ports import PortError, inputs_of_json, put
from aiida_byoc.workflows.resources import scheduler_options

__all__ = ["ApprovedWorkChain"]

_LABEL = "approved"


class ApprovedWorkChain(AcceptedWork, WorkChain):
    """Run an approved work chain with the inputs of an accepted command."""

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        super().define(spec)
        cls.define_accepted(spec)
        spec.outline(cls.run_approved, cls.conclude)
        spec.outputs.dynamic = True
        spec.outputs.valid_type = Data
        spec.exit_code(
            510, "ERROR_INPUTS_INVALID", message="The work chain refuses its inputs: {reason}."
        )
        spec.exit_code(
            511,
            "ERROR_WORKCHAIN_UNAVAILABLE",
            message="The approved work chain cannot be used: {reason}.",
        )
        spec.exit_code(512, "ERROR_WORKCHAIN_FAILED", message="The work chain failed: {reason}.")

    def run_approved(self) -> ToContext | ExitCode:
        """Submit the approved work chain, or take up the one that was submitted before a crash."""
        submitted = self.submitted(_LABEL, LinkType.CALL_WORK)
        if submitted is not None:
            return ToContext(approved=submitted)
        if self.is_cancelled():
            return self.exit_codes.ERROR_CANCELLED
        command = self.command
        try:
            process = _process_class(command)
        except EntryPointError as error:
            return self.exit_codes.ERROR_WORKCHAIN_UNAVAILABLE.format(reason=error)
        try:
            inputs = _inputs(process, command, self._placement())
            refusal = process.spec().inputs.validate(inputs)
        except (PortError, TypeError, ValueError) as error:
            return self.exit_codes.ERROR_INPUTS_INVALID.format(reason=error)
        if refusal is not None:
            return self.exit_codes.ERROR_INPUTS_INVALID.format(reason=_one_line(refusal))
        inputs.setdefault("metadata", {})["call_link_label"] = _LABEL
        with self.one_commit():
            child = self.submit(process, **inputs)
            self._tell_begin()
        return ToContext(approved=child)

    def conclude(self) -> ExitCode | None:
        """Take over its outputs, and its failure."""
        child = self.ctx.approved
        if child.is_finished_ok:
            self.out_many(child.base.links.get_outgoing(link_type=LinkType.RETURN).nested())
            return None
        if child.is_finished:
            reason = (
                f"exit status {child.exit_status}, {_one_line(child.exit_message or 'no message')}"
            )
        else:
            reason = f"it was {child.process_state.value}; its process report on the node says why"
        return self.exit_codes.ERROR_WORKCHAIN_FAILED.format(reason=reason.rstrip("."))

    def _tell_begin(self) -> None:
        """`queued` and `running` are one moment: the workers have it, and nothing else has to make room."""
        now = datetime.now(UTC)
        told = utc_now_text(now)
        self.emit(
            Report(
                state=ExecutionState.QUEUED, occurred_at=now, facts={"timings": {"queued": told}}
            )
        )
        self.emit(
            Report(
                state=ExecutionState.RUNNING, occurred_at=now, facts={"timings": {"started": told}}
            )
        )

    def _placement(self) -> WorkchainPlacement:
        return WorkchainPlacement.model_validate(self.inputs["placement"].get_dict())


def _process_class(command: SubmitJobCommand) -> type[WorkChain]:
    """Raises `EntryPointError` for what is no work chain, too."""
    workload = _workload(command)
    process = WorkflowFactory(workload.entry_point)
    if not (isinstance(process, type) and issubclass(process, WorkChain)):
        raise EntryPointError(f"{workload.entry_point} is a function, not a work chain")
    return process


def _inputs(
    process: type[WorkChain], command: SubmitJobCommand, placement: WorkchainPlacement
) -> dict[str, Any]:
    values = _copied(_workload(command).inputs)
    for place, value in placement.defaults.items():
        put(values, place, value)
    inputs = inputs_of_json(process.spec().inputs, values, codes=placement.codes)
    for place in placement.options:
        put(inputs, place, scheduler_options(command.resource_shape, placement), wins=True)
    return inputs


def _workload(command: SubmitJobCommand) -> WorkchainWorkload:
    if not isinstance(command.workload, WorkchainWorkload):
        raise TypeError(f"the workload is a {command.workload.kind}")
    return command.workload


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
