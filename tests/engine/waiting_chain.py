"""A work chain that waits for another process, for workers of the tests to run."""

from __future__ import annotations

from typing import Any

from aiida.engine import ToContext, WorkChain
from aiida.orm import Int, load_node

__all__ = ["Waits"]


class Waits(WorkChain):
    """Wait until the process with a given pk has ended."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input("process_pk", valid_type=Int)
        spec.outline(cls.wait, cls.end)  # a last step waits for nothing

    def wait(self) -> ToContext:
        return ToContext(other=load_node(self.inputs.process_pk.value))

    def end(self) -> None:
        self.report("ended")
