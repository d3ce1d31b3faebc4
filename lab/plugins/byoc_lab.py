"""A small plugin of somebody else's: what approved work chains are tried with."""

from __future__ import annotations

from aiida.engine import ProcessSpec, ToContext, WorkChain
from aiida.orm import AbstractCode, List, SinglefileData, Str
from aiida_shell.calculations.shell import ShellJob

__all__ = ["ShellWorkChain"]


class ShellWorkChain(WorkChain):
    """Run a text as a shell script, by aiida-shell."""

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        super().define(spec)
        spec.input("code", valid_type=AbstractCode)
        spec.input("script", valid_type=SinglefileData)
        spec.input("greeting", valid_type=Str)
        spec.expose_inputs(ShellJob, namespace="job", include=("metadata",))
        spec.outline(cls.run_shell, cls.keep)
        spec.output("stdout", valid_type=SinglefileData)
        spec.output("greeting", valid_type=Str)
        spec.exit_code(410, "ERROR_SHELL", message="the shell said no")

    def run_shell(self) -> ToContext:
        return ToContext(
            shell=self.submit(
                ShellJob,
                code=self.inputs.code,
                arguments=List(["{script}"]),
                nodes={"script": self.inputs.script},
                metadata=self.inputs.job.metadata,
            )
        )

    def keep(self) -> object:
        if not self.ctx.shell.is_finished_ok:
            return self.exit_codes.ERROR_SHELL
        self.out("stdout", self.ctx.shell.outputs.stdout)
        self.out("greeting", self.inputs.greeting)
        return None
