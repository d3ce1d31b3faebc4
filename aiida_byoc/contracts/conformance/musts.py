"""A MUST is a small function that tries it, with an id and the place where a page demands it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Broken", "Finding", "Musts", "NotTested", "Unusable", "hold", "table", "until"]

Scene = TypeVar("Scene")
Verdict = Literal["kept", "broken", "not tested"]


class Broken(Exception):
    """The MUST is broken; the message is the evidence."""


class NotTested(Exception):
    """The MUST cannot be tried here; the message says what is needed."""


class Unusable(Exception):
    """Nothing can be tried; the message says what to correct."""


@dataclass(frozen=True)
class Finding:
    """What became of one MUST.

    Attributes:
        must: its id.
        says: what must be so.
        where: page and heading that say so, below `docs/contracts/`.
        verdict: `kept`, `broken` or `not tested`.
        evidence: what was seen, in a sentence.
    """

    must: str
    says: str
    where: str
    verdict: Verdict
    evidence: str

    def as_json(self) -> dict[str, str]:
        """The finding as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Must(Generic[Scene]):
    name: str
    says: str
    where: str
    try_it: Callable[[Scene], str | None]


class Musts(Generic[Scene]):
    """The MUSTs of one role, tried in the order in which they stand."""

    def __init__(self) -> None:
        self._all: list[_Must[Scene]] = []

    def must(
        self, name: str, where: str
    ) -> Callable[[Callable[[Scene], str | None]], Callable[[Scene], str | None]]:
        """Register a function whose docstring says what must be so; it returns what it saw, or raises `Broken`."""

        def register(try_it: Callable[[Scene], str | None]) -> Callable[[Scene], str | None]:
            says = " ".join((try_it.__doc__ or "").split())
            self._all.append(_Must(name, says, where, try_it))
            return try_it

        return register

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((each.name, each.where) for each in self._all)

    def try_all(self, scene: Scene, lacks: str | None = None) -> Iterator[Finding]:
        """Try each, unless something `lacks` that all of them need; what goes wrong on the way breaks it too."""
        for each in self._all:
            if lacks is not None:
                yield Finding(each.name, each.says, each.where, "not tested", lacks)
                continue
            verdict: Verdict = "kept"
            try:
                evidence = each.try_it(scene) or "as it must be"
            except NotTested as why:
                verdict, evidence = "not tested", str(why)
            except Broken as why:
                verdict, evidence = "broken", str(why)
            except ProblemError as why:
                faults = "; ".join(f"{one.field}: {one.message}" for one in why.errors)
                verdict, evidence = "broken", f"a message does not fit its contract: {faults}"
            except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                verdict, evidence = (
                    "broken",
                    f"no answer that could be read: {type(error).__name__}: {error}",
                )
            yield Finding(each.name, each.says, each.where, verdict, evidence)


def hold(condition: object, evidence: str) -> None:
    """Raise `Broken` with the evidence unless the condition holds."""
    if not condition:
        raise Broken(evidence)


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of the condition; `Broken` when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Broken(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.005)
    return value


def table(findings: Iterable[Finding]) -> str:
    """The findings for people, broken ones with all that was seen."""
    rows = [("MUST", "verdict", "says", "evidence")]
    rows += [(each.must, each.verdict, each.where, each.evidence) for each in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )
