"""Rules of the house that a reader would otherwise have to remember."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fences.house import CODE, ROOT, files

MOST_LINES = 300
PRIVATE_PATH = re.compile(
    r"/(?:home|Users)/\w|/root/|/tmp/\w"
    r"|(?<![\w.:/}~])/(?:[\w.-]+/)+(?:aiida_byoc|adapter|convex|docs|lab|tests|\.lab|\.venv)/"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")


def test_files_are_small():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files(*CODE)
        if path.suffix in {".py", ".ts", ".tsx", ".sh", ".sql"}
        and not path.name.endswith(".generated.ts")
        and (lines := len(path.read_text().splitlines())) > MOST_LINES
    }

    assert long == {}, "which second idea moved in?"


@pytest.mark.parametrize(
    ("text", "private"),
    [('"/home/ann/x"', True), ("cd /root/byoc", True), ("/tmp/x", True), ("= /srv/clone/aiida_byoc/cli", True),
     ("see docs/contracts/", False), ("https://host/a/docs/b", False), ("{root}/a/lab/x", False), ("/work/out", False)],
)  # fmt: skip
def test_a_path_of_somebodys_machine_is_recognised(text, private):
    assert bool(PRIVATE_PATH.search(text)) is private


def test_no_path_of_somebodys_machine():
    """A clone runs anywhere."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in files()
        if path != Path(__file__)
        for line in path.read_text().splitlines()
        if PRIVATE_PATH.search(line)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("name", "host"),
    [("requirements.lock", r"https?://|--(?:extra-)?index-url"), ("package-lock.json", r'"resolved": "http')],
)  # fmt: skip
def test_locks_name_no_registry(name, host):
    assert re.findall(host, (ROOT / name).read_text()) == []


def test_nothing_is_unfinished():
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in files(*CODE, "docs", "tests")
        if path != Path(__file__)
        for line in path.read_text().splitlines()
        if UNFINISHED.search(line)
    ]

    assert found == []


def test_the_documents_name_tests_that_exist():
    names = {path.name for path in files("tests")}
    named = {
        (path.name, test)
        for path in files("docs", "README.md", "CONTRIBUTING.md")
        for test in re.findall(r"\btest_\w+\.py\b|\b\w+\.test\.ts\b", path.read_text())
    }

    assert len(named) > 10
    assert {(document, test) for document, test in named if test not in names} == set()
