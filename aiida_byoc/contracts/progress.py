"""How far a running job says it is. `docs/contracts/event-execution-lifecycle.md`, *Progress*.

The words are the program's own, so nothing is decided by them. `runtimes/in_job` cuts them into shape beside the
container; what it passes on fits this model.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from aiida_byoc.contracts.base import PLAIN, Fact, UtcTime

__all__ = ["Metric", "Progress"]

_SAFE = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""

Metric = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
"""A metric's name: what Convex, too, takes for a field."""

_Line = Annotated[str, Field(max_length=500), PLAIN]


class Progress(Fact):
    """The newest report of a job's program about itself."""

    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    step: Annotated[int, Field(ge=0, le=_SAFE)] | None = None
    steps: Annotated[int, Field(ge=1, le=_SAFE, description="how many there will be")] | None = None
    message: _Line | None = None
    metrics: (
        Annotated[dict[Metric, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=16)]
        | None
    ) = None
    reported_at: UtcTime

    @classmethod
    def read(cls, value: object) -> Progress | None:
        """Read what was passed on from a compute node; `None` for what breaks the contract: it is worth no failure."""
        try:
            return cls.model_validate(value)
        except ValidationError:
            return None
