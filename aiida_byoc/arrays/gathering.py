"""What the elements of an array wrote of their tasks, as one file: ten thousand would be fetched one by one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida_byoc.runtimes.in_job import ELEMENTS, ENDED, GATHERED, RESULTS

__all__ = ["gather_command", "lines"]

_GATHER = """\
cd {directory} 2> /dev/null && [ -d {elements} ] || exit 0
find {elements} -mindepth 2 -maxdepth 2 \\( -name {results} -o -name {ended} \\) \\
  -exec awk 1 {{}} + > {gathered}.tmp &&
mv {gathered}.tmp {gathered}
"""
"""`awk 1` ends the last line of each file, also of one whose element was killed while it wrote."""


def gather_command(directory: str) -> str:
    """Shell: bring together what the array in this directory has left, if it has begun; once it has ended."""
    return _GATHER.format(
        directory=shlex.quote(directory),
        elements=ELEMENTS,
        results=RESULTS,
        ended=ENDED,
        gathered=GATHERED,
    )


def lines(retrieved: Path) -> Iterator[dict[str, Any]]:
    """What they wrote, element by element, as it was fetched into this directory.

    The last line of an element that was killed may be cut off: that task has not ended, as far as anybody knows.

    Raises:
        ValueError: another line is none.
    """
    path = retrieved / Path(GATHERED).name
    # As an earlier version of the node has it fetched, where an attempt was under way when it was replaced.
    ungathered = sorted(retrieved.glob(f"elements/*/{RESULTS}"))
    for each in [path] if path.exists() else ungathered:
        cut_off: ValueError | None = None
        with each.open(encoding="utf-8") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError as error:
                    cut_off = cut_off or error
                    continue
                # So begins an element, and what an earlier version of its program wrote beside its results.
                begins = isinstance(line, dict) and not line.keys() & {"id", "ended_at"}
                if cut_off is not None and not begins:
                    raise cut_off
                cut_off = None
                if isinstance(line, dict):
                    yield line
