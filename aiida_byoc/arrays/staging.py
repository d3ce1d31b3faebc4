"""The tasks of an array as its elements read them, each its own without those before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from aiida_byoc.runtimes.in_job import START_WIDTH

__all__ = ["write_tasks"]


def write_tasks(
    tasks: Iterable[Sequence[Any]], pack: int, lines: BinaryIO, starts: BinaryIO
) -> None:
    """Write a line for each task, and for each `pack` of them where their lines begin."""
    written = 0
    for place, task in enumerate(tasks):
        if place % pack == 0:
            starts.write(b"%*d\n" % (START_WIDTH - 1, written))
        written += lines.write(json.dumps(task).encode() + b"\n")
