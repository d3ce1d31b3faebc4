"""Faults of arrays that adapter and node both refuse before acceptance: workload, field, and what is said of it."""

from __future__ import annotations

from typing import Any

__all__ = ["FAULTS"]

_TABLE = {"columns": ["x", "y"], "rows": [["1", "2"], ["3", "4"]]}
_FILE = {"url": "https://data.example/t.json", "sha256": "0" * 64}


def _array(**changes: Any) -> dict[str, Any]:
    kind = {"kind": "array", "image": f"localhost/byoc/demo@sha256:{'d' * 64}", "argv": ["{x}"]}
    return {**kind, "tasks": _TABLE, **changes}


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown parameter": (
        _array(argv=["a", "{z}"]),
        "workload.argv.1",
        "names a parameter z that is neither a column nor one of x, y, task_id, task_number",
    ),
    "unknown parameter, by reference": (
        _array(tasks={"columns": ["y"], "count": 2, "file": _FILE}),
        "workload.argv.0",
        "neither a column nor one of y",
    ),
    "ragged row": (
        _array(tasks={**_TABLE, "rows": [["1", "2"], ["3"]]}),
        "workload.tasks.rows",
        "row 1 has no value in column 1, y",
    ),
    "too long a row": (
        _array(tasks={**_TABLE, "rows": [["1", "2"], ["3", "4", "5"]]}),
        "workload.tasks.rows",
        "row 1 has a value in column 2, but there is none",
    ),
    "duplicate ids": (
        _array(tasks={**_TABLE, "ids": ["a", "a"]}),
        "workload.tasks.ids",
        "row 1 has the id of row 0",
    ),
    "too many tasks": (
        _array(argv=["a"], tasks={"count": 100_001}),
        "workload.tasks.count",
        "100000",
    ),
    "too many tasks, by reference": (
        _array(tasks={"columns": ["x"], "count": 100_001, "file": _FILE}),
        "workload.tasks.count",
        "100000",
    ),
}
