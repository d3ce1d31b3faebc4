"""Where and as what an accepted job runs: what the owner's policy has decided, stored with the command."""

from __future__ import annotations

from typing import Any

from aiida_byoc.arrays.rules import Arrays
from aiida_byoc.commands.data import Caps
from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.commands.image_policy import PullFrom
from aiida_byoc.commands.recovery import Recovery

__all__ = ["Placement", "WorkchainPlacement"]


class Placement(Table):
    """Where and as what an accepted container runs: the policy's decision, in Slurm's and OCI's words.

    `pull` is where the image is fetched from if the store lacks it.
    """

    partition: str
    account: str | None = None
    qos: str | None = None
    gres: str = "gpu"
    image_digest: str
    pull: PullFrom | None = None
    runtime: str
    processes: int = 4096
    scratch: str | None = None
    data: Caps = Caps()
    progress_seconds: float = 10
    recovery: Recovery | None = None
    """`None`: accepted by an older version; further attempts ask for the same."""
    arrays: Arrays | None = None
    """How an array is dealt out; `None` for any other job."""
    elements: int = 1
    """So many jobs of Slurm's an array is at first, of which so many run `at_a_time`."""
    at_a_time: int = 1


class WorkchainPlacement(Table):
    """Where and with what an accepted work chain runs: the policy's decision, in Slurm's and AiiDA's words."""

    partition: str
    account: str | None = None
    qos: str | None = None
    gres: str = "gpu"
    elements: int = 1
    codes: list[str]
    defaults: dict[str, Any]
    options: list[str]
