"""Reads the contract pages: headings, tables and JSON examples, each found by the comment before it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contracts.messages import DOCUMENTS

PAGES = sorted(path for path in DOCUMENTS.glob("*.md") if path.name != "README.md")

_TABLE = re.compile(r"<!-- (?P<kind>\w+): (?P<name>[\w-]+) -->\n\n(?P<rows>(?:\|.*\n)+)")
_EXAMPLE = re.compile(
    r"<!-- example: (?P<model>\w+)(?P<many>\[\])?(?: invalid: (?P<field>[\w.()]+))? -->\n"
    r"```json\n(?P<text>.*?)```",
    re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A JSON example; `field` is the one at fault when it must be refused."""

    page: str
    model: str
    many: bool
    field: str | None
    message: Any

    def __str__(self) -> str:
        return f"{self.page}:{self.model}{':' + self.field if self.field else ''}"


def tables(kind: str) -> dict[str, list[dict[str, str]]]:
    """All tables of one kind, by name; a table is its rows by column."""
    found: dict[str, list[dict[str, str]]] = {}
    for path in PAGES:
        for match in _TABLE.finditer(path.read_text()):
            if match["kind"] == kind:
                assert match["name"] not in found, f"{match['name']} has two tables"
                found[match["name"]] = _rows(match["rows"])
    return found


def section(path: Path, heading: str) -> str:
    """The text below one second-level heading."""
    return path.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows_below(path: Path, heading: str) -> list[dict[str, str]]:
    """The rows of the first table below a heading."""
    match = re.search(r"(?:\|.*\n)+", section(path, heading))
    return _rows(match[0]) if match else []


def examples() -> list[Example]:
    """All JSON examples of all pages."""
    return [
        Example(
            page=path.name,
            model=match["model"],
            many=bool(match["many"]),
            field=match["field"],
            message=json.loads(match["text"]),
        )
        for path in PAGES
        for match in _EXAMPLE.finditer(path.read_text())
    ]


def plain(cell: str) -> str:
    """A cell without its code marks."""
    return cell.strip().strip("`")


def _rows(text: str) -> list[dict[str, str]]:
    head, _, *body = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()
    ]
    assert all(len(row) == len(head) for row in body), text
    return [dict(zip(head, row, strict=True)) for row in body]
