"""What is said when something is refused or fails: problems of the one catalogue, as RFC 9457 documents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aiida_byoc.contracts.base import Fact
from aiida_byoc.contracts.catalogue import CATALOGUE, PROBLEM_BASE, ProblemType

__all__ = ["CATALOGUE", "PROBLEM_BASE", "FieldError", "Problem", "ProblemError", "ProblemType"]


class FieldError(Fact):
    """What is wrong with one field: never its value."""

    field: Annotated[str, Field(description="dotted path, for example workload.argv.0")]
    message: str
    remedy: str | None = None


class Problem(Fact):
    """RFC 9457 `application/problem+json`."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    retry: bool
    errors: list[FieldError] = []
    instance: str | None = None
    retry_after: Annotated[
        int | None,
        Field(
            ge=1, le=86400, description="seconds after which a retry may succeed, as in the header"
        ),
    ] = None


class ProblemError(Exception):
    """Raise a problem of the catalogue; `detail` speaks to the sender and repeats nothing secret.

    Args:
        name: a key of `CATALOGUE`; an unknown one is a `KeyError` at once.
        detail: one sentence on this occurrence; the catalogue's remedy when left out.
        errors: the fields at fault.
        retry_after: seconds to wait, for problems that a retry can cure.
    """

    def __init__(
        self,
        name: str,
        detail: str | None = None,
        *,
        errors: list[FieldError] | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.kind = CATALOGUE[name]
        self.detail = detail or self.kind.remedy
        self.errors = errors or []
        self.retry_after = retry_after
        super().__init__(f"{name}: {self.detail}")

    def problem(self, instance: str | None = None) -> Problem:
        """The body to send."""
        return Problem(
            type=self.kind.uri,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            retry=self.kind.retry,
            errors=self.errors,
            instance=instance,
            retry_after=self.retry_after,
        )

    @classmethod
    def of(cls, problem: Problem, retry_after: int | None = None) -> ProblemError:
        """Raise again, here, what another part decided; an unknown type becomes `internal-error`."""
        name = problem.type.removeprefix(PROBLEM_BASE)
        if name not in CATALOGUE:
            return cls("internal-error")
        return cls(
            name,
            problem.detail,
            errors=problem.errors,
            retry_after=retry_after or problem.retry_after,
        )
