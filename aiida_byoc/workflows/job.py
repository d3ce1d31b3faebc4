"""`byoc.job`: the story of one accepted job, from its image to its outcome.

The outline is the story; the process handlers at the end decide what follows an attempt that failed. What the next one
asks for is computed from provenance (`recovery.py`), never kept: a worker that dies forgets its context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from aiida.orm import CalcJobNode, FolderData, Int, RemoteData

from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.commands.placement import Placement
from aiida_byoc.runtimes import FROM_SQUASHFS
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.runtimes.images import ImageError, ImageMissing, ImageStore
from aiida_byoc.workflows.accepted import AcceptedWork
from aiida_byoc.workflows.attempt import attempt_inputs, attempt_label, left
from aiida_byoc.workflows.inputs import InputUnavailable
from aiida_byoc.workflows.recovery import ask, refusal

__all__ = ["JobWorkChain"]


class JobWorkChain(AcceptedWork, BaseRestartWorkChain):
    """Run an accepted command as containers through Slurm until it succeeds, fails or runs out of attempts."""

    _process_class = ContainerJob

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        super().define(spec)
        cls.define_accepted(spec)
        spec.input(
            "code",
            valid_type=str,
            non_db=True,
            help="Label of the code that runs the in-job program.",
        )
        spec.input(
            "image_store", valid_type=str, non_db=True, help="Directory of the node's images."
        )
        spec.input(
            "fetched",
            valid_type=str,
            non_db=True,
            help="Directory of the files that the node has fetched.",
        )
        spec.input_namespace(
            "given",
            valid_type=(FolderData, RemoteData),
            dynamic=True,
            required=False,
            help="What earlier jobs left and this one reads, by its inputs.",
        )
        spec.inputs["max_iterations"].default = lambda: Int(99)  # `try_again` decides
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
        spec.exit_code(510, "ERROR_TABLE_INVALID", message="An input is not usable: {reason}.")
        spec.exit_code(500, "ERROR_IMAGE_MISSING", message="The image is missing: {reason}.")
        spec.exit_code(502, "ERROR_IMAGE_DAMAGED", message="The image is damaged: {reason}.")
        spec.exit_code(
            503, "ERROR_IMAGE_UNAVAILABLE", message="The node's image store fails: {reason}."
        )

    def unpack_image(self) -> ExitCode | None:
        """Have the image's rootfs ready before Slurm is asked for anything."""
        digest = self._placement().image_digest
        store = ImageStore(Path(self.inputs["image_store"]))
        try:
            self.ctx.rootfs = str(store.rootfs(digest))
            if self._placement().runtime in FROM_SQUASHFS:
                store.squashfs(digest)
            self.ctx.image_env = store.environment(digest)
        except ImageMissing as error:
            return self.exit_codes.ERROR_IMAGE_MISSING.format(reason=error)
        except ImageError as error:
            return self.exit_codes.ERROR_IMAGE_DAMAGED.format(reason=error)
        except OSError as error:
            return self.exit_codes.ERROR_IMAGE_UNAVAILABLE.format(reason=error.strerror)
        return None

    def run_process(self) -> ToContext | ExitCode:
        """Submit the next attempt, or take up the one that was submitted before a crash; none once cancelled."""
        submitted = self.submitted(attempt_label(self.ctx.iteration + 1), LinkType.CALL_CALC)
        if submitted is not None:
            self.ctx.iteration += 1
            return ToContext(children=append_(submitted))
        if self.is_cancelled():
            return self.exit_codes.ERROR_CANCELLED
        tried = self._tried()
        try:
            self.ctx.inputs = self._attempt_inputs(tried)
        except InputUnavailable as error:
            return self.exit_codes.ERROR_TABLE_INVALID.format(reason=error)
        with self.one_commit():
            return super().run_process()

    def _attempt_inputs(self, tried: list[CalcJobNode]) -> dict[str, Any]:
        return attempt_inputs(
            self.command,
            self._placement(),
            ask(self.command, self._placement(), [left(node) for node in tried]),
            tried,
            submission_id=self.submission_id,
            rootfs=self.ctx.rootfs,
            image_env=self.ctx.image_env,
            given=self.inputs.get("given", {}),
            fetched=FetchedFiles(Path(self.inputs["fetched"])),
            code=self.inputs["code"],
            cancelled=self.cancelled_tasks(),
        )

    def keep_outputs(self) -> None:
        """Make the last attempt's outputs the job's."""
        self.out_many(self.exposed_outputs(self.ctx.children[-1], ContainerJob, agglomerate=False))

    @process_handler(priority=100)
    def try_again(self, node: CalcJobNode) -> ProcessHandlerReport | None:
        """Start another attempt if the command asks for it, and attempts and policy allow it; else say why not."""
        if node.is_finished_ok:
            return None
        why = refusal(self.command, self._placement(), [left(each) for each in self._tried()])
        if why is None:
            return ProcessHandlerReport(do_break=True)
        message = node.exit_message or ""
        if why:
            message = f"{message.rstrip('.')}; {why}."
        return ProcessHandlerReport(True, ExitCode(node.exit_status or 1, message or None))

    def _tried(self) -> list[CalcJobNode]:
        """The attempts so far, in their order."""
        if not self.ctx.iteration:
            return []
        called = self.node.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all()
        by_label = {link.link_label: link.node for link in called}
        return [by_label[attempt_label(number)] for number in range(1, self.ctx.iteration + 1)]

    def _placement(self) -> Placement:
        return Placement.model_validate(self.inputs["placement"].get_dict())
