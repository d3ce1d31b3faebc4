"""The files of this house, without what was installed or generated into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("aiida_byoc", "adapter")
CODE = (*PACKAGES, "lab", "convex", "web")
_TEXT = {
    ".py",
    ".ts",
    ".tsx",
    ".css",
    ".html",
    ".js",
    ".sh",
    ".sql",
    ".md",
    ".json",
    ".toml",
    ".cfg",
    ".lock",
    ".typed",
    "",
}
_NOT_OURS = {"node_modules", "__pycache__", "_generated", "build", "dist"}


def files(*folders: str) -> Iterator[Path]:
    """Every text file below the folders; without folders, of the whole house."""
    starts = [ROOT / folder for folder in folders] or [
        path for path in ROOT.iterdir() if not path.name.startswith(".") or path.name == ".ci"
    ]
    for start in starts:
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            parts = path.relative_to(ROOT).parts
            ours = not any(part in _NOT_OURS or part.endswith(".egg-info") for part in parts)
            if ours and path.is_file() and path.suffix in _TEXT:
                yield path
