"""What every message has in common: frozen, strict, UTC, and closed where we receive orders."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

__all__ = ["PLAIN", "Fact", "Order", "UtcTime", "no_control_characters", "utc_now_text"]


class Order(BaseModel):
    """A message that asks for something: unknown fields are refused, types are not coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fact(BaseModel):
    """A message that reports something: unknown optional fields of a later minor version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def no_control_characters(value: str, allowed: str = "") -> str:
    """Refuse C0, C1, lone surrogates and line or paragraph separators: they forge log and script lines."""
    for character in value:
        if character not in allowed and unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise ValueError(f"must not contain control characters (found U+{ord(character):04X})")
    return value


PLAIN = AfterValidator(no_control_characters)
"""Marks a string without control characters; stands after its length, so that lengths are told in characters."""


_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$")


def _rfc3339_only(value: object) -> object:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError(
            "must be an RFC 3339 time with an offset, for example 2026-01-31T12:00:00Z"
        )
    return value


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("must lie in the years 1 to 9999 also in UTC") from error


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


UtcTime = Annotated[
    AwareDatetime,
    Field(strict=False),
    BeforeValidator(_rfc3339_only),
    AfterValidator(_as_utc),
    PlainSerializer(_rfc3339, return_type=str),
]
"""An instant: RFC 3339 with an offset on the wire, aware UTC in Python, written in milliseconds with `Z`."""


def utc_now_text(now: datetime) -> str:
    """Write an instant as the wire does (RFC 3339, milliseconds, `Z`)."""
    return _rfc3339(now)
