"""A command's shape and place in AiiDA's words for a scheduler: what Slurm is asked for, whatever the job runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiida_byoc.commands.placement import Placement, WorkchainPlacement
from aiida_byoc.contracts.commands import ResourceShape
from aiida_byoc.schedulers.options import job_directives

__all__ = ["scheduler_options"]


def scheduler_options(
    shape: ResourceShape,
    placement: Placement | WorkchainPlacement,
    *,
    name: str | None = None,
    exclude: Sequence[str] = (),
    warning: tuple[str, int] | None = None,
    array: tuple[int, int | None] | None = None,
) -> dict[str, Any]:
    """The `metadata.options` of a calculation.

    Args:
        name: the job's own in Slurm, if it has one.
        exclude, warning, array: see `job_directives`.
    """
    gres = f"{placement.gres}:{shape.gpus}" if shape.gpus else None
    options: dict[str, Any] = {
        "resources": {
            "num_machines": shape.nodes,
            "num_mpiprocs_per_machine": shape.tasks_per_node,
            "num_cores_per_mpiproc": shape.cpu // shape.tasks_per_node,
        },
        "max_memory_kb": shape.memory_mib * 1024,
        "max_wallclock_seconds": shape.walltime_seconds,
        "queue_name": placement.partition,
    }
    named = {
        "account": placement.account,
        "qos": placement.qos,
        "custom_scheduler_commands": job_directives(
            name,
            gres=gres,
            scratch_mib=shape.scratch_mib,
            exclude=exclude,
            warning=warning,
            array=array,
        ),
    }
    return options | {name: value for name, value in named.items() if value}
