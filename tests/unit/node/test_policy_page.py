"""`docs/policy.md` names every table and key of the policy, with the default that counts, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiida_byoc.commands.policy_keys import Key, keys

PAGE = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
TABLE = re.compile(r"<!-- policy: (?P<name>[^\n]+?) -->\n\n(?P<rows>(?:\|.*\n)+)")
COLUMNS = ["Key", "Type", "Default", "Meaning", "A refusal says"]


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in text.splitlines()
    ]


def written() -> dict[str, list[list[str]]]:
    """Each table of the page: its rows."""
    found = {}
    for match in TABLE.finditer(PAGE):
        head, _, *body = rows(match["rows"])
        assert head == COLUMNS
        assert match["name"] not in found
        found[match["name"]] = body
    return found


def default(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return "–"  # noqa: RUF001
    if isinstance(key.default, bool):
        return f"`{str(key.default).lower()}`"
    if isinstance(key.default, str):
        return f'`"{key.default}"`'
    return f"`{key.default}`"


def test_the_page_has_every_table() -> None:
    assert set(written()) == {key.table or "(file)" for key in keys()}


@pytest.mark.parametrize("table", sorted({key.table for key in keys()}))
def test_and_every_key_with_its_default(table: str) -> None:
    known = {f"`{key.name}`": default(key) for key in keys() if key.table == table}

    assert {row[0]: row[2] for row in written()[table or "(file)"]} == known


def test_every_key_has_a_type_and_a_meaning() -> None:
    for body in written().values():
        for row in body:
            assert len(row) == len(COLUMNS), row
            assert row[1], row
            assert row[3], row
