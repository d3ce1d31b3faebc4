"""How much of the node each tenant may have: `[quotas]` in `policy.toml`, and of one `[quotas.tenants.<id>]`."""

from __future__ import annotations

from pydantic import Field

from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.problems import FieldError

__all__ = ["Quota", "Quotas", "asked_node_seconds"]

_HOUR = 3600


class Quota(Table):
    """What one tenant may have; a key that is left out sets no bound, or leaves the default's."""

    running: int | None = Field(ge=1, default=None)
    """Launched jobs that have not ended; more wait in the ledger, none is refused."""
    queued: int | None = Field(ge=1, default=None)
    """Jobs that wait beyond those; a submission beyond both is refused."""
    submissions_per_minute: int | None = Field(ge=1, default=None)
    """Jobs accepted in any 60 seconds."""
    node_hours: float | None = Field(gt=0, default=None)
    """Nodes times hours that ran in the last `node_hours_days`, and that jobs ask for which have not ended."""
    node_hours_days: int | None = Field(ge=1, le=366, default=None)
    """Length of the window that moves on with the time, in days."""
    weight: float | None = Field(gt=0, le=1000, default=None)
    """The tenant's share of the launched jobs, beside others' that wait as well."""

    @property
    def bounds_acceptance(self) -> bool:
        """Whether a submission can be refused by it."""
        bounds = (self.queued, self.submissions_per_minute, self.node_hours)
        return any(bound is not None for bound in bounds)


class Quotas(Quota):
    """The quotas of every tenant, and of those that have their own: each key there takes the place of the one here."""

    node_hours_days: int | None = Field(ge=1, le=366, default=30)
    weight: float | None = Field(gt=0, le=1000, default=1)
    tenants: dict[Name, Quota] = {}

    def of(self, tenant_id: str) -> Quota:
        """What counts for a tenant."""
        own = self.tenants.get(tenant_id, Quota())
        everybodys = self.model_dump(exclude={"tenants"})
        return Quota(**{**everybodys, **own.model_dump(exclude_none=True)})

    def never_fits(self, command: SubmitJobCommand, elements: int = 1) -> list[FieldError]:
        """What a command asks for beyond its tenant's whole quota, so that waiting does not help.

        Args:
            elements: so many jobs of Slurm's it is.
        """
        hours = self.of(command.tenant_id).node_hours
        if hours is None or asked_node_seconds(command, elements) <= hours * _HOUR:
            return []
        nodes = command.resource_shape.nodes * elements
        return [
            FieldError(
                field="resource_shape.walltime_seconds",
                message=f"with {nodes} node(s) exceeds all of the tenant's {hours:g} node hours",
                remedy=f"ask for at most {int(hours * _HOUR) // nodes}",
            )
        ]


def asked_node_seconds(command: SubmitJobCommand, elements: int = 1) -> int:
    """Nodes times walltime of one attempt, in seconds; of an array for each of its elements."""
    return command.resource_shape.nodes * command.resource_shape.walltime_seconds * elements
