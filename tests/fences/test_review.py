"""A change of a model without its document is found, in real repositories, and the commits of this clone have none."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fences.house import ROOT
from tests.fences.review import CONTRACTS, DOCUMENTS, PAGES_OF, NoBase, base_of, undocumented

MODEL = '"""Logs."""\n\nclass LogRequest:\n    """What is asked for."""\n\n    limit: int = 1\n'
LOGS, PAGE = f"{CONTRACTS}/logs.py", f"{DOCUMENTS}/job-logs.md"
NOBODY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class Repository:
    """A small repository; `base` is its first commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "-q", "-b", "main")
        self.commit({LOGS: MODEL, PAGE: "# Logs\n"})
        self.base = self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | NOBODY
        return subprocess.run(
            ["git", *words],
            cwd=self.root, env=environment, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    def commit(self, files: dict[str, str], message: str = "Change") -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def missing(self) -> list[str]:
        return list(undocumented(self.root, self.base))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_a_model_that_changes_alone_is_found(repository):
    repository.commit({LOGS: MODEL.replace("= 1", "= 2")})

    (sentence,) = repository.missing()

    for words in (LOGS, "job-logs.md", "Contract-unchanged"):
        assert words in sentence


def test_a_model_that_changes_with_its_page_is_right(repository):
    """In another commit, too: what counts is the change as a whole."""
    repository.commit({LOGS: MODEL.replace("= 1", "= 2")})
    repository.commit({PAGE: "# Logs\n\nlimit: 2\n"})

    assert repository.missing() == []


def test_another_surfaces_page_does_not_serve(repository):
    repository.commit({LOGS: MODEL.replace("= 1", "= 2"), f"{DOCUMENTS}/errors.md": "# Errors\n"})

    assert len(repository.missing()) == 1


@pytest.mark.parametrize(
    "text",
    [
        MODEL.replace("What is asked for", "What a client asks for"),
        MODEL.replace("= 1", "= 1  # of 10"),
        MODEL.replace("= 1", "= (\n        1\n    )"),
    ],
    ids=["docstring", "comment", "layout"],
)
def test_what_changes_nothing_needs_no_page(text, repository):
    repository.commit({LOGS: text})

    assert repository.missing() == []


def test_a_model_that_goes_or_comes_needs_its_page(repository):
    repository.git("rm", "-q", LOGS)
    repository.commit({f"{CONTRACTS}/projection.py": "class ProjectionUpdate:\n    seq: int\n"})

    assert [sentence.split()[0] for sentence in repository.missing()] == [
        LOGS,
        f"{CONTRACTS}/projection.py",
    ]


def test_who_says_why_nothing_changed_is_believed(repository):
    repository.commit(
        {LOGS: MODEL.replace("= 1", "= 0 + 1")}, "Change\n\nContract-unchanged: the sum is the same"
    )
    assert repository.missing() == []

    repository.commit({LOGS: MODEL.replace("= 1", "= 3")})
    assert len(repository.missing()) == 1


@pytest.mark.parametrize("trailer", ["Contract-unchanged:", "Contract-unchanged"])
def test_a_reason_that_is_none_does_not_serve(trailer, repository):
    repository.commit({LOGS: MODEL.replace("= 1", "= 2")}, f"Change\n\n{trailer}")

    assert len(repository.missing()) == 1


def test_what_others_did_meanwhile_is_theirs(repository):
    """The change is held against where it departed, not against what its target has become."""
    repository.git("checkout", "-q", "-b", "change")
    repository.commit({"other": "x"})
    repository.git("checkout", "-q", "main")
    repository.commit({LOGS: MODEL.replace("= 1", "= 2")})
    repository.git("checkout", "-q", "change")

    assert list(undocumented(repository.root, base_of(repository.root, "main"))) == []


def clone(repository: Repository, *options: str) -> Path:
    target = repository.root.parent / "clone"
    repository.git("clone", "-q", *options, repository.root.as_uri(), str(target))
    return target


def change(place: Path, repository: Repository) -> None:
    (place / LOGS).write_text(MODEL.replace("= 1", "= 2"))
    repository.git("-C", str(place), "commit", "-q", "-a", "-m", "Change")


@pytest.mark.parametrize("depth", [(), ("--depth=1",)], ids=["full", "shallow"])
def test_a_clone_is_held_against_where_it_came_from(depth, repository):
    repository.commit({"other": "x"})
    place = clone(repository, *depth)
    change(place, repository)

    assert len(list(undocumented(place, base_of(place)))) == 1


def without_a_remote(repository: Repository) -> Path:
    return repository.root


def that_has_nothing_of_its_own(repository: Repository) -> Path:
    return clone(repository)


def cut_off_before_its_base(repository: Repository) -> Path:
    """As a CI job fetches a branch: one commit, and its target's tip, without what is between."""
    place = clone(repository, "--depth=1")
    repository.git("-C", str(place), "checkout", "-q", "--orphan", "change")
    repository.git("-C", str(place), "commit", "-q", "-m", "Change")
    return place


@pytest.mark.parametrize(
    "arranged", [without_a_remote, that_has_nothing_of_its_own, cut_off_before_its_base]
)
def test_where_nothing_can_be_compared_that_is_said(
    arranged: Callable[[Repository], Path], repository: Repository
) -> None:
    with pytest.raises(NoBase):
        base_of(arranged(repository))


def test_the_commits_of_this_clone_keep_the_rule():
    try:
        base = base_of(ROOT, os.environ.get("BYOC_REVIEW_BASE"))
    except (NoBase, OSError) as reason:  # OSError: an archive without git
        pytest.skip(str(reason))

    assert list(undocumented(ROOT, base)) == []


def models() -> set[str]:
    """The files of the contracts that hold a message; the conformance kit only speaks of them."""
    kit = ROOT / CONTRACTS / "conformance"
    found = set()
    for path in (ROOT / CONTRACTS).rglob("*.py"):
        if path.is_relative_to(kit):
            continue
        classes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
        ]
        bases: set[Any] = {ast.unparse(base) for each in classes for base in each.bases}
        if bases & {"Fact", "Order", "BaseModel"}:
            found.add(str(path.relative_to(ROOT / CONTRACTS)))
    return found


def test_every_model_has_a_page_that_exists():
    pages = {page for pages in PAGES_OF.values() for page in pages}
    there = {path.name for path in (ROOT / DOCUMENTS).glob("*.md")}

    assert models() <= set(PAGES_OF)
    assert pages <= there
    assert [model for model in PAGES_OF if not (ROOT / CONTRACTS / model).is_file()] == []


def test_the_template_asks_what_a_reviewer_has_to_know():
    """The four questions of the decision on boundaries."""
    text = (ROOT / ".github" / "pull_request_template.md").read_text()

    for words in ("surface", "source of record", "idempotency", "retry", "tenant", "auth"):
        assert words in text.lower(), words
    for surface in ("SubmitJobCommand", "ExecutionEvent", "ProjectionUpdate"):
        assert surface in text
