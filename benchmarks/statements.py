"""How many SQL statements each part sends: PostgreSQL writes all to its log for a while, with the session's name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

__all__ = ["counted", "logged", "most_frequent"]

MARK = "byoc-bench"
_PREFIX = f"{MARK}|%a|"
_LINE = re.compile(rf"^{MARK}\|(?P<who>[^|]*)\|LOG:\s+(?:statement|execute [^:]+): (?P<sql>.*)")
_PARTS = (
    ("byoc-worker-", "AiiDA's workers"),
    ("byoc-broker", "AiiDA's workers (broker)"),
    ("byoc-launcher", "launcher"),
    ("byoc-channel", "agent: channel"),
    ("byoc-relay-", "agent: relay"),
    ("byoc-heartbeat", "agent: heartbeat"),
    ("byoc-", "agent: other loops"),
)
_ENDS = ("COMMIT", "END")
_SPECIFIC = re.compile(r"'[^']*'|\$?\b\d+\b")
_SHOWN = 160
"""Characters of a statement that tell it from the others."""


@contextmanager
def logged(superuser: psycopg.Connection) -> Iterator[None]:
    """Let the server log every statement; other sessions follow when they next look."""
    settings = {"log_statement": "'all'", "log_line_prefix": f"'{_PREFIX}'"}
    for name, value in settings.items():
        superuser.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
    superuser.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for name in settings:
            superuser.execute(f"ALTER SYSTEM RESET {name}".encode())
        superuser.execute("SELECT pg_reload_conf()")


def counted(log: Path, offset: int) -> dict[str, dict[str, int]]:
    """Statements and commits by part, from there on in the server's log.

    Returns:
        By part `statements`, of which `commits` are `COMMIT`; a statement outside a transaction is a commit of its own
        that is not counted as one.
    """
    statements: Counter[str] = Counter()
    commits: Counter[str] = Counter()
    for part, sql in _sent(log, offset):
        statements[part] += 1
        commits[part] += sql.upper().startswith(_ENDS)
    return {part: {"statements": statements[part], "commits": commits[part]} for part in statements}


def most_frequent(log: Path, offset: int, count: int = 20) -> dict[str, dict[str, int]]:
    """The beginnings of the statements that each part sends most often, without what differs between them."""
    seen: dict[str, Counter[str]] = {}
    for part, sql in _sent(log, offset):
        seen.setdefault(part, Counter())[_SPECIFIC.sub("?", sql)[:_SHOWN]] += 1
    return {part: dict(found.most_common(count)) for part, found in seen.items()}


def _sent(log: Path, offset: int) -> Iterator[tuple[str, str]]:
    with log.open(errors="replace") as lines:
        lines.seek(offset)
        for line in lines:
            if (found := _LINE.match(line)) is not None:
                yield _part(found["who"]), found["sql"].strip()


def _part(application: str) -> str:
    return next((part for mark, part in _PARTS if application.startswith(mark)), "others")
