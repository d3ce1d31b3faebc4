"""What a node's owner allows of data: `[data]` in `policy.toml`.

What counts while a job runs is kept with it (`Caps`), so a later change of the policy changes no accepted job.
"""

from __future__ import annotations

from pydantic import Field

from aiida_byoc.commands.housekeeping import Table

__all__ = ["Caps", "Data"]

_MIB, _GIB = 2**20, 2**30


class Caps(Table):
    """The limits of one job's data."""

    max_log_bytes: int = Field(ge=0, default=64 * _MIB)
    """Of stdout and of stderr, each. Beyond it only the last 64 KiB are kept."""
    max_outputs: int = Field(ge=0, le=10_000, default=1000)
    """How many files a job may declare, by whatever patterns."""
    max_output_bytes: int = Field(ge=0, default=64 * _GIB)
    """Of one file."""
    max_outputs_bytes: int = Field(ge=0, default=256 * _GIB)
    """Of all files of one job."""
    keep_in_place_above_bytes: int = Field(ge=0, default=256 * _MIB)
    """A larger file stays in the job's directory; AiiDA knows where it is, and has no copy."""


class Data(Caps):
    """The owner's word on data."""

    def caps(self) -> Caps:
        """What a job that is accepted now is held to."""
        return Caps(**{name: getattr(self, name) for name in Caps.model_fields})
