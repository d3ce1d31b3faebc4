"""The raw data of a run, as JSON below `.bench/`: one file per row, and `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figures import Measure

__all__ = ["Keeper"]


class Keeper:
    """Writes what one run found, as soon as it is found.

    Args:
        parent: where runs are kept, each in a directory named for when it began.
    """

    def __init__(self, parent: Path) -> None:
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
        self.directory = parent / began
        self.directory.mkdir(parents=True)

    def raw(self, row: str, name: str, data: Any) -> None:
        """Keep single observations: a list of numbers, or whatever JSON can hold."""
        file = self.directory / f"{row}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, name: data}, indent=1, default=str))

    def summary(
        self,
        machine: Mapping[str, Any],
        loads: Mapping[str, float],
        rows: Mapping[str, Sequence[Measure]],
        failed: Mapping[str, str],
    ) -> None:
        """Keep what the table shows, and on which machine, under which load (before each row) it was measured."""
        found = {
            row: [{**asdict(each), "ratio": each.ratio, "is_met": each.is_met} for each in measures]
            for row, measures in rows.items()
        }
        content = {"machine": machine, "load_before": loads, "rows": found, "failed": failed}
        (self.directory / "summary.json").write_text(json.dumps(content, indent=1))
