"""What a runtime is asked to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Container"]


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container.

    Attributes:
        rootfs: the unpacked image, read-only.
        argv: program and arguments, passed literally.
        env: names of the variables to hand over; their values are in the runtime's own environment, since every user
            of the compute node can read a command line.
        network: the machine's network instead of none.
        gpus: how many GPUs Slurm has given to the job.
    """

    rootfs: str
    argv: Sequence[str]
    env: Sequence[str] = ()
    network: bool = False
    gpus: int = 0
