"""`byoc.job`: the story of one accepted job, from its image to its outcome.

The outline is the story; recovery is the table of process handlers at the end.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from aiida.common.links import LinkType
from aiida.engine import (
    BaseRestartWorkChain,
    ExitCode,
    ProcessHandlerReport,
    ProcessSpec,
    ToContext,
    append_,
    process_handler,
    while_,
)
from aiida.manage import get_manager
from aiida.orm import CalcJobNode, Dict, Int, ProcessNode
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.brokers.postgres import PostgresBroker
from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.commands.policy import Placement
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from aiida_byoc.events.hooks import EmitsExecutionEvents, transaction
from aiida_byoc.events.outbox import Report
from aiida_byoc.runtimes.images import ImageError, ImageStore
from aiida_byoc.workflows.attempt import attempt_inputs
from aiida_byoc.workflows.outcome import CANCELLED_STATUS, OPEN, outcome

__all__ = ["JobWorkChain", "node_uuid"]

_ENDED = {ProcessState.FINISHED, ProcessState.EXCEPTED, ProcessState.KILLED}
_RECOVERABLE = {110: "oom", 120: "timeout", 140: "node_fail", 141: "preempted"}
"""Exit status of an attempt → the word by which a retry policy names it."""


def node_uuid(submission_id: str) -> uuid.UUID:
    """The AiiDA UUID of a job's work chain: the same for every try to create it, so the database admits one."""
    return uuid.uuid5(uuid.UUID(submission_id), "work chain")


class JobWorkChain(EmitsExecutionEvents, BaseRestartWorkChain):
    """Run an accepted command as containers through Slurm until it succeeds, fails or runs out of attempts."""

    _process_class = ContainerJob

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        super().define(spec)
        spec.input("command", valid_type=Dict, help="The accepted SubmitJobCommand.")
        spec.input("placement", valid_type=Dict, help="What the node's policy decided for it.")
        spec.input(
            "submission_id", valid_type=str, non_db=True, help="The job in the node's ledger."
        )
        spec.input(
            "code",
            valid_type=str,
            non_db=True,
            help="Label of the code that runs the in-job program.",
        )
        spec.input(
            "image_store", valid_type=str, non_db=True, help="Directory of the node's images."
        )
        spec.inputs["max_iterations"].default = lambda: Int(
            11
        )  # above any retry policy: `try_again` decides
        spec.outline(
            cls.setup,
            cls.unpack_image,
            while_(cls.should_run_process)(
                cls.run_process,
                cls.inspect_process,
            ),
            cls.keep_outputs,
        )
        spec.expose_outputs(ContainerJob)
        spec.outputs["remote_folder"].required = False  # a job does not fail for want of a link
        spec.exit_code(
            CANCELLED_STATUS, "ERROR_CANCELLED", message="The job was cancelled between attempts."
        )
        spec.exit_code(
            500, "ERROR_IMAGE_UNAVAILABLE", message="The image cannot be used: {reason}."
        )

    def get_or_create_db_record(self) -> ProcessNode:
        # `uuid` is unique in the database: a second work chain for the same submission cannot be stored.
        node = super().get_or_create_db_record()
        node.backend_entity.bare_model.uuid = node_uuid(self.submission_id)
        return node

    def setup(self) -> None:
        """Read the command back from provenance."""
        super().setup()
        command = self._command()
        self.ctx.retry_on = list(command.retry_policy.on)
        self.ctx.max_attempts = command.retry_policy.max_attempts

    def unpack_image(self) -> ExitCode | None:
        """Have the image's rootfs ready before Slurm is asked for anything."""
        digest = self._placement().image_digest
        store = ImageStore(Path(self.inputs["image_store"]))
        try:
            self.ctx.rootfs = str(store.rootfs(digest))
            self.ctx.image_env = store.environment(digest)
        except (ImageError, OSError) as error:
            return self.exit_codes.ERROR_IMAGE_UNAVAILABLE.format(reason=error)
        return None

    def run_process(self) -> ToContext | ExitCode:
        """Submit the next attempt, or take up the one that was submitted before a crash; none once cancelled."""
        label = f"iteration_{self.ctx.iteration + 1:02d}"
        links = self.node.base.links.get_outgoing(
            link_type=LinkType.CALL_CALC, link_label_filter=label
        )
        submitted = links.first()
        if submitted is not None:
            self.ctx.iteration += 1
            self.report(f"taking up {submitted.node.process_label}<{submitted.node.pk}> again")
            return ToContext(children=append_(submitted.node))
        if self._is_cancelled():
            return self.exit_codes.ERROR_CANCELLED
        self.ctx.inputs = attempt_inputs(
            self._command(),
            self._placement(),
            submission_id=self.submission_id,
            number=self.ctx.iteration + 1,
            rootfs=self.ctx.rootfs,
            image_env=self.ctx.image_env,
            code=self.inputs["code"],
        )
        with self._one_commit():
            waiting = super().run_process()
        crashpoints.reached("child.submitted")
        return waiting

    def keep_outputs(self) -> None:
        """Make the last attempt's outputs the job's."""
        self.out_many(self.exposed_outputs(self.ctx.children[-1], ContainerJob, agglomerate=False))

    def report_of_transition(self) -> Report | None:
        """The job ends with its work chain, in the same transaction, unless Slurm has the last word."""
        state = self.state
        if state not in _ENDED:
            return None
        report = outcome(self.node, state)
        if report is None:
            self.node.base.extras.set(OPEN, True)
        return report

    @process_handler(priority=100)
    def try_again(self, node: CalcJobNode) -> ProcessHandlerReport | None:
        """Start another attempt if the command asked for it and has one left."""
        wanted = _RECOVERABLE.get(node.exit_status or 0) in self.ctx.retry_on
        if wanted and self.ctx.iteration < self.ctx.max_attempts:
            self.report(
                f"attempt {self.ctx.iteration} ended with [{node.exit_status}]: trying again"
            )
            return ProcessHandlerReport(do_break=True)
        return None

    @process_handler(priority=0)
    def give_up(self, node: CalcJobNode) -> ProcessHandlerReport | None:
        """A failure that nothing above mended is the job's: same exit code, same message."""
        if node.is_finished_ok:
            return None
        return ProcessHandlerReport(True, ExitCode(node.exit_status or 1, node.exit_message))

    def _one_commit(self) -> contextlib.AbstractContextManager[object]:
        """The attempt's node, checkpoint and task in one transaction, where the broker can join it.

        With any other broker, a worker that dies in between leaves a node without a task.
        """
        joins = isinstance(get_manager().get_broker(), PostgresBroker)
        return transaction(self.node.backend) if joins else contextlib.nullcontext()

    def _is_cancelled(self) -> bool:
        with transaction(self.node.backend) as connection:
            row = connection.execute(
                "SELECT cancel_requested_at IS NOT NULL FROM byoc.job WHERE submission_id = %s",
                (self.submission_id,),
            ).fetchone()
        return row is not None and bool(row[0])

    def _command(self) -> SubmitJobCommand:
        return validated(SubmitJobCommand, self.inputs["command"].get_dict())

    def _placement(self) -> Placement:
        return Placement.model_validate(self.inputs["placement"].get_dict())
