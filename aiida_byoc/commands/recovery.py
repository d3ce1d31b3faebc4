"""What the node's owner lets a job change between its attempts: `[recovery]` in `policy.toml`.

Stored with the command when it is accepted, as all of the policy's decision.
"""

from __future__ import annotations

from pydantic import Field

from aiida_byoc.commands.housekeeping import Table

__all__ = ["Recovery"]


class Recovery(Table):
    """Bounds of recovery.

    Attributes:
        memory_factor: how much more memory an attempt has after one that ran out of it.
        memory_ceiling_mib: the most that it may come to; `None`: `ceilings.memory_mib`.
        requeues: so often an administrator's requeue, or a compute node that refuses the job, starts it anew; then it
            fails. 0: at the first.
    """

    memory_factor: float = Field(gt=1, le=1024, default=2)
    memory_ceiling_mib: int | None = Field(ge=1, le=2**24, default=None)
    requeues: int = Field(ge=0, le=50, default=3)

    def within(self, ceiling: int) -> Recovery:
        """The same rules, with the ceiling that counts written out."""
        return self.model_copy(update={"memory_ceiling_mib": self.memory_ceiling_mib or ceiling})
