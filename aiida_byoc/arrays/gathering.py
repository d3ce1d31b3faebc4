"""What the elements of an array wrote of their tasks, as one file: ten thousand would be fetched one by one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida_byoc.runtimes.in_job import (
    ARRAY,
    ARRAY_TASKS,
    ELEMENTS,
    ENDED,
    GATHERED,
    RESULTS,
    TASK_RECORD,
)

__all__ = ["gather_command", "lines"]

_GATHER = """\
cd {directory} 2> /dev/null && [ -d {elements} ] || exit 0
for results in {elements}/*/{results}; do
  element=${{results%/*}}
  element=${{element##*/}}
  last=$(((element + 1) * {pack}))
  [ ! -e "$results" ] || sed -n "$((last - {pack} + 1)),${{last}}p;${{last}}q" {tasks}
done | awk -F '[[,]' '{{ printf "{array}/tasks/%d/%d/{record}\\n", int($2 / 1000), $2 }}' |
  xargs -r grep -ahs '^{{.*}}$' > {gathered}.$$
find {elements} -mindepth 2 -maxdepth 2 \\( -name {results} -o -name {ended} \\) \\
  -exec awk 1 {{}} + >> {gathered}.$$ &&
mv {gathered}.$$ {gathered}
"""
"""An element that was killed may have ended tasks whose results it had not written down: their own records come first.

`awk 1` ends the last line of each file, also of one whose element was killed while it wrote."""


def gather_command(directory: str, pack: int) -> str:
    """Shell: bring together what the array in this directory has left, if it has begun; once it has ended.

    Args:
        pack: tasks of each element.
    """
    return _GATHER.format(
        directory=shlex.quote(directory),
        elements=ELEMENTS,
        results=RESULTS,
        ended=ENDED,
        gathered=GATHERED,
        pack=pack,
        tasks=ARRAY_TASKS,
        array=ARRAY,
        record=TASK_RECORD,
    )


def lines(retrieved: Path) -> Iterator[dict[str, Any]]:
    """What they wrote, as it was fetched into this directory: the later of two lines of a task counts.

    The last line of an element that was killed may be cut off: of that task its own record counts, if it has one.

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
