"""The tables of `policy.toml` by which the node treats what it has accepted: how much, how patiently, how long."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["Limits", "Progress", "Repair", "Retention", "Signatures", "Table"]


class Table(BaseModel):
    """A table of the file; what it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Limits(Table):
    """How many launched jobs may be under way; what is accepted beyond waits in the ledger, in order."""

    active_jobs: int = Field(ge=1, default=200)
    active_jobs_per_tenant: int | None = Field(ge=1, default=None)
    """`None`: a tenant may have them all. `quotas.running` takes its place."""
    slurm_jobs: int | None = Field(ge=1, default=None)
    """So many of them may be in Slurm, where the site sets a limit.

    A work chain counts by its calculations, an array by its elements.
    """


class Repair(Table):
    """How the node plays again what AiiDA paused because the cluster failed it: with full jitter, ever more seldom."""

    max_plays: int = Field(ge=0, default=20)
    """So often in vain, then a person is needed. 0: never play."""
    first_seconds: float = Field(gt=0, default=10)
    most_seconds: float = Field(gt=0, default=600)

    @field_validator("most_seconds")
    @classmethod
    def _most_is_not_less_than_first(cls, most: float, others: ValidationInfo) -> float:
        if most < others.data.get("first_seconds", most):
            raise ValueError("is less than first_seconds")
        return most


class Progress(Table):
    """How often the progress that a running job reports is told."""

    seconds: float = Field(ge=1, le=3600, default=10)
    """At least that long between two events of a job; the newest report counts."""


class Signatures(Table):
    """Whether commands must carry the product's signature; one that is there must be right in any case."""

    required: bool | None = None
    """`None`: they must if the node knows keys of its product, as an enrolled one does."""


class Retention(Table):
    """How long the node remembers a job that has ended, and that the product has in full."""

    days: int | None = Field(ge=1, default=None)
    """`None`: for good."""
