"""The tasks of an array, read from provenance by page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from aiida.common import NotExistent
from aiida.orm import CalcJobNode, load_node

from aiida_byoc.arrays.table import FILENAME, opened
from aiida_byoc.workflows.killed import output_of

__all__ = ["tasks_page"]


def tasks_page(pk: int, *, only_failed: bool, after: int, most: int) -> list[dict[str, Any]] | None:
    """Rows of the newest table that an attempt of the job left; `None` without one.

    Args:
        pk: of the job's work chain.
        only_failed: leave out what has succeeded.
        after: the number before the first.
        most: how many rows at most.
    """
    try:
        chain = load_node(pk)
    except NotExistent:  # somebody deleted it in AiiDA
        return None
    called = [each for each in chain.called if isinstance(each, CalcJobNode)]
    for attempt in sorted(called, key=lambda each: each.pk or 0, reverse=True):
        left = output_of(attempt, "tasks")
        if left is None:
            continue
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, FILENAME)
            path.write_bytes(left.get_content(mode="rb"))
            with opened(path) as table:
                return table.page(only_failed=only_failed, after=after, most=most)
    return None
