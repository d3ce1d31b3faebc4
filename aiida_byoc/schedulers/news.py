"""The hints that running jobs leave for the node (`runtimes/in_job/news.py`), as the node reads them.

All jobs of a cluster share one directory, so one listing serves them all and Slurm is not asked. A hint is no evidence.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from aiida_byoc.contracts.progress import Progress
from aiida_byoc.runtimes.in_job import NEWS

__all__ = [
    "directory_of",
    "forget_command",
    "heard",
    "is_report",
    "newest_report",
    "open_command",
    "read_command",
    "reports",
]

_REPORT = "progress-"
_DRAFT = "draft"
_LARGEST = 16 * 1024
"""Bytes of a report that are read: more than the contract lets it have."""
_KEPT_MINUTES = 24 * 60
"""What nobody took away until then belongs to a job whose worker did not see its end."""


def directory_of(job_directory: str) -> str:
    """Where the job in this directory leaves its hints."""
    levels = PurePosixPath(NEWS)
    return str(PurePosixPath(job_directory).parents[levels.parts.count("..") - 1] / levels.name)


def open_command(directory: str) -> str:
    """Make the directory, and take away what is of no use any more."""
    place = shlex.quote(directory)
    return f"mkdir -p -m 700 {place} && find {place} -maxdepth 1 -type f -mmin +{_KEPT_MINUTES} -delete"


def heard(entries: Iterable[str]) -> dict[str, frozenset[str]]:
    """What the entries of the directory say, by job name."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        name, _, word = entry.partition(".")
        found.setdefault(name, set()).add(word)
    return {name: frozenset(words - {_DRAFT}) for name, words in found.items()}


def is_report(word: str) -> bool:
    """Whether a job's word is a progress report; all others are news of its life."""
    return word.startswith(_REPORT)


def newest_report(words: Iterable[str]) -> str | None:
    """The newest report among a job's words, if there is one."""
    reports = [word for word in words if is_report(word)]
    return max(reports, key=lambda word: (len(word), word), default=None)


def read_command(directory: str, entries: Iterable[str]) -> str:
    """Print reports, one a line; those that were replaced meanwhile are left out."""
    names = " ".join(shlex.quote(entry) for entry in entries)
    return f"cd {shlex.quote(directory)} && head -q -c {_LARGEST} -- {names} 2> /dev/null; true"


def reports(output: str) -> dict[str, Progress]:
    """Read what `read_command` printed, by job name; what is no report is left out."""
    found = {}
    for line in output.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        progress = Progress.read(told)
        if progress is not None:
            found[str(told.get("job_name"))] = progress
    return found


def forget_command(directory: str, names: Iterable[str]) -> str:
    """Take away what jobs said that have ended."""
    entries = " ".join(f"{shlex.quote(name)}.*" for name in names)
    return f"cd {shlex.quote(directory)} && rm -f -- {entries}"
