"""One text for one meaning: RFC 8785 (JCS) over the validated message, and the fingerprint of an intent."""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["NOT_INTENT", "canonical_json", "fingerprint", "strict_json"]

_MOST_PLACES, _LEAST_PLACES = 21, -6
"""Between them ECMAScript writes a number without an exponent."""

NOT_INTENT = frozenset({"traceparent"})
"""Fields that a retry may change: they say how a request is observed, not what is asked for."""


def canonical_json(value: object) -> bytes:
    """Serialise JSON data by RFC 8785: keys sorted by UTF-16 code units, numbers as ECMAScript writes them.

    Raises `ValueError` on what is no number, on integers beyond 2^53 - 1 and on lone surrogates.
    """
    _check(value)
    return _text(value).encode()


def fingerprint(operation: str, command: BaseModel) -> str:
    """SHA-256 (hex) of the operation and the validated, defaulted command without `NOT_INTENT`.

    Fields at their default count as absent, so that a default added later leaves old fingerprints alone.
    """
    intent = command.model_dump(mode="json", exclude=set(NOT_INTENT), exclude_defaults=True)
    return hashlib.sha256(
        b"byoc-v1\n" + operation.encode() + b"\n" + canonical_json(intent)
    ).hexdigest()


def strict_json(body: bytes) -> Any:
    """Parse JSON as RFC 8259 wants it: UTF-8, no NaN, no duplicate keys, bounded depth.

    Raises `ValueError` with a sentence for the sender.
    """

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the member {key[:64]!r} appears twice in one object")
            found[key] = value
        return found

    def no_constants(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=no_duplicates, parse_constant=no_constants
        )
    except UnicodeDecodeError as exception:
        raise ValueError("the body is not UTF-8") from exception
    except RecursionError as exception:
        raise ValueError("the body is nested too deeply") from exception


def _text(value: object) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_text(item)}" for key, item in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _number(value: float) -> str:
    """Number::toString of ECMA-262, with Python's shortest digits, which are the same."""
    if value == 0:
        return "0"
    negative, places, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, places))
    point = len(digits) + int(exponent)
    if 0 < point <= _MOST_PLACES:
        text = digits[:point].ljust(point, "0")
        text += f".{digits[point:]}" if digits[point:] else ""
    elif _LEAST_PLACES < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
        text = f"{mantissa}e{point - 1:+d}"
    return f"-{text}" if negative else text


def _check(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as exception:
            raise ValueError("lone surrogates have no canonical form") from exception
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key)
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("what is no number has no canonical form")
    elif isinstance(value, int) and abs(value) > 2**53 - 1:
        raise ValueError("integers beyond 2^53 - 1 are not exact in JSON")
