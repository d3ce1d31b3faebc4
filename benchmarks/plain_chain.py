"""The baseline's processes: what one writes with aiida-core alone to run a script in a container."""

from __future__ import annotations

from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.engine import CalcJob, WorkChain
from aiida.orm import Str

__all__ = ["PlainChain", "PlainJob"]


class PlainJob(CalcJob):
    """Run a script with a shell, and keep its `result`."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input("script", valid_type=Str)
        options = spec.inputs["metadata"]["options"]
        options["resources"].default = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        options["max_wallclock_seconds"].default = 120
        options["max_memory_kb"].default = 64 * 1024
        options["withmpi"].default = False

    def prepare_for_submission(self, folder: Any) -> Any:
        """Nothing to write: the script is an argument."""
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-c", self.inputs.script.value]
        job = CalcInfo()
        job.codes_info = [code]
        job.retrieve_list = ["result"]
        return job


class PlainChain(WorkChain):
    """Submit the job and pass on how it ended."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.expose_inputs(PlainJob, namespace="job")
        spec.outline(cls.run_job, cls.conclude)
        spec.exit_code(300, "ERROR_JOB", message="the job failed")

    def run_job(self) -> Any:
        """Run it."""
        job = self.submit(PlainJob, **self.exposed_inputs(PlainJob, "job"))
        return self.to_context(job=job)

    def conclude(self) -> Any:
        """The job's end is the chain's."""
        return None if self.ctx.job.is_finished_ok else self.exit_codes.ERROR_JOB
