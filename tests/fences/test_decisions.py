"""Every decision has a page of the same form, the index names each, and links lead somewhere."""

from __future__ import annotations

import re

import pytest

from tests.fences.house import ROOT

PAGES = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
HEADINGS = ["Context", "Decision", "Rejected", "Consequences"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_decision_says_what_was_rejected_and_what_holds_it(page):
    text = page.read_text()

    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert re.search(
        r"^- Status: (accepted|replaced by \[\d{4}\]\([\w-]+\.md\))$", text, re.MULTILINE
    )
    assert re.search(r"^- Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    for name in re.findall(r"`(tests/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_decisions_are_numbered_and_the_index_names_each():
    index = (ROOT / "docs" / "adr" / "README.md").read_text()

    assert [int(page.name[:4]) for page in PAGES] == list(range(1, len(PAGES) + 1))
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == [page.name for page in PAGES]
