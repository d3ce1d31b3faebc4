"""Patterns of outputs mean what a shell means by them, never leave the directory, and never take long."""

from __future__ import annotations

import glob
import itertools
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiida_byoc.runtimes.in_job.globs import Pattern

DIRECTORIES = ["a", ".h"]
NAMES = ["b.txt", "ab", "a-b", "c1", "ü", ".hb", *DIRECTORIES]
PARTS = [
    "*",
    "?",
    "**",
    "a*",
    "*b",
    "[ab]",
    "[!a]",
    "[a-c]?",
    "*.txt",
    ".*",
    "a",
    "b.txt",
    "*a*b*",
    "[-a]*",
    "[.]h",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels; two of the names are directories in the upper ones, and files in the lowest."""
    root: Path = tmp_path_factory.mktemp("tree")
    places = [
        Path(),
        *(Path(*path) for depth in (1, 2) for path in itertools.product(*[DIRECTORIES] * depth)),
    ]
    for place in places:
        (root / place).mkdir(exist_ok=True)
        for name in NAMES:
            if name not in DIRECTORIES or len(place.parts) == 2:
                (root / place / name).touch()
    return root


def found(root: Path, pattern: str) -> list[str]:
    return [name for name, _ in Pattern(pattern).find(str(root))]


def expected(root: Path, pattern: str) -> set[str]:
    """What Python's own glob finds, which takes directories as well: they end with a slash, or are seen to be some."""
    names = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207  (that of Path is another)
    return {name for name in names if not name.endswith("/") and (root / name).is_file()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
def test_a_pattern_means_what_pythons_glob_means(tree: Path, parts: list[str]) -> None:
    pattern = "/".join(parts)

    names = found(tree, pattern)

    assert len(names) == len(set(names))
    assert set(names) == expected(tree, pattern)
    everything = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert {name for name in everything if Pattern(pattern).matches(name)} == set(names)


def test_links_are_seen_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to("../outside")
    (work / "up").symlink_to("..")

    assert found(work, "**") == ["link", "up"]
    assert found(work, "link/*") == []
    assert found(work, "*/*/secret") == []


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.out")).touch()

    assert found(tmp_path, "*.out") == ["\udcff.out"]
    assert found(tmp_path, "?.out") == ["\udcff.out"]


@pytest.mark.parametrize("pattern", ["*a" * 100 + "b", "[a-b]*" * 40 + "c", "?*" * 120 + "x"])
def test_no_pattern_takes_long(pattern: str) -> None:
    began = time.monotonic()

    assert not Pattern(pattern).matches("a" * 255)

    assert time.monotonic() - began < 1


def test_only_directories_that_may_hold_something_are_read(tmp_path: Path) -> None:
    """`results/*` is not slower for a million files elsewhere."""
    for name in ("results", "elsewhere"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "file").touch()

    assert found(tmp_path, "results/*") == ["results/file"]

    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"results": 0o700, "elsewhere": 0o755}


def test_order_is_that_of_names_within_a_directory(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        (tmp_path / f"f{number}").touch()

    assert found(tmp_path, "f*") == ["f1", "f2", "f3"]
