"""A change of a surface's model comes with its document: `python -m tests.fences.review [BASE]`.

A model file has changed when its code has: comments, docstrings and layout say nothing new. Where code changes and the
contract does not, a trailer in the commit says so and why: `Contract-unchanged: the validator moved`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PAGES_OF", "NoBase", "base_of", "undocumented"]

CONTRACTS, DOCUMENTS = "aiida_byoc/contracts", "docs/contracts"
TRAILER = "Contract-unchanged"
PAGES_OF = {
    "array.py": ("command-submit-job.md",),
    "base.py": ("README.md", "errors.md"),
    "canonical.py": ("command-submit-job.md", "command-signature.md", "provenance-receipt.md"),
    "catalogue.py": ("errors.md",),
    "commands.py": ("command-submit-job.md", "command-cancel-job.md"),
    "container.py": ("command-submit-job.md",),
    "delivery.py": ("command-delivery.md", "event-delivery.md", "node-heartbeat.md"),
    "enrolment.py": ("node-enrolment.md",),
    "events.py": ("event-execution-lifecycle.md",),
    "failures.py": ("event-execution-lifecycle.md",),
    "files.py": ("command-submit-job.md",),
    "identity.py": ("command-submit-job.md", "node-enrolment.md"),
    "lifecycle.py": ("event-execution-lifecycle.md",),
    "logs.py": ("job-logs.md",),
    "problems.py": ("errors.md",),
    "progress.py": ("event-execution-lifecycle.md",),
    "projection.py": ("projection-update.md",),
    "receipt/envelope.py": ("provenance-receipt.md",),
    "receipt/statement.py": ("provenance-receipt.md",),
    "signature.py": ("command-signature.md",),
    "workchain.py": ("command-submit-job.md",),
}
"""File below `aiida_byoc/contracts` → pages, one of which has to change with it."""


class NoBase(Exception):
    """There is nothing to compare with; the message says why."""


def base_of(repository: Path, named: str | None = None) -> str:
    """The commit from which HEAD has departed: from what is named, else from what it is to be merged into.

    Raises:
        NoBase: no remote, a history that is cut off before it, or nothing of its own on HEAD.
    """
    candidates = [named] if named else ["@{upstream}", "origin/HEAD", "origin/main"]
    for candidate in candidates:
        found = _git(repository, "merge-base", "HEAD", candidate)
        if found.returncode == 0:
            base = found.stdout.strip()
            if base == _git(repository, "rev-parse", "HEAD").stdout.strip():
                raise NoBase(f"HEAD has nothing that {candidate} has not")
            return base
    raise NoBase(f"no common history with {' or '.join(candidates)}")


def undocumented(repository: Path, base: str) -> Iterator[str]:
    """The models that changed since the base without their pages; a sentence each, which says what to do."""
    diff = _git(repository, "diff", "--name-only", "--no-renames", f"{base}...HEAD", check=True)
    touched = set(diff.stdout.splitlines())
    for model, pages in PAGES_OF.items():
        path = f"{CONTRACTS}/{model}"
        if path not in touched or touched & {f"{DOCUMENTS}/{page}" for page in pages}:
            continue
        if _meaning(repository, base, path) == _meaning(repository, "HEAD", path):
            continue
        if not _is_said_to_be_unchanged(repository, base, path):
            yield (
                f"{path} changed and {' or '.join(pages)} did not: say there what is different, with schema, golden"
                f" message and version ({DOCUMENTS}/README.md); or, if nothing is, end the commit's message with"
                f" `{TRAILER}: <why>`"
            )


def _meaning(repository: Path, commit: str, path: str) -> str:
    """The code without comments, docstrings and layout; empty where there is none."""
    found = _git(repository, "show", f"{commit}:{path}")
    if found.returncode != 0:
        return ""
    tree = ast.parse(found.stdout)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_prose(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_prose(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_said_to_be_unchanged(repository: Path, base: str, path: str) -> bool:
    """Whether each commit that touched the file gives a reason."""
    form = f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x20)"
    said = _git(repository, "log", "--no-merges", form, f"{base}..HEAD", "--", path, check=True)
    reasons = [line.partition(" ")[2].strip() for line in said.stdout.splitlines()]
    return bool(reasons) and all(reasons)


def _git(repository: Path, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    # A hook's variables would lead git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", *words]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=check
    )


def main(named: str | None) -> int:
    """Print what is missing; 1 if anything is."""
    repository = Path.cwd()
    try:
        missing = list(undocumented(repository, base_of(repository, named)))
    except NoBase as error:
        print(f"nothing to compare: {error}")
        return 0
    print("\n".join(missing) or "every model that changed has its document")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
