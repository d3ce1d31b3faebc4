"""From raw JSON to a message, or to a problem that names the field and the remedy and repeats no value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from aiida_byoc.contracts.problems import FieldError, ProblemError

__all__ = ["field_errors", "validated"]

Model = TypeVar("Model", bound=BaseModel)

_Place: TypeAlias = "tuple[_Place, object] | None"
"""Where a value stands: its parent's place and its own key or index."""

_MAX_ERRORS = 50
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = {"array", "container", "workchain"}
_SOURCES = {"text", "job", "path", "url", "name", "glob"}
_OF_KIND = {
    "union_tag_invalid": "must be 'array', 'container' or 'workchain'",
    "union_tag_not_found": "Field required",
}
_REMEDIES = {
    "union_tag_invalid": "use one of the values the contract lists",
    "union_tag_not_found": "add the field",
    "extra_forbidden": "remove the field; the contract does not know it",
    "missing": "add the field",
    "string_type": "send a JSON string",
    "int_type": "send a JSON integer, without quotes",
    "int_from_float": "send a JSON integer",
    "bool_type": "send true or false",
    "list_type": "send a JSON array",
    "dict_type": "send a JSON object",
    "model_type": "send a JSON object",
    "literal_error": "use one of the values the contract lists",
    "string_pattern_mismatch": "use the form the contract gives",
    "string_too_long": "shorten the value",
    "too_long": "send fewer items",
    "too_short": "send at least one item",
    "greater_than_equal": "use a larger number",
    "less_than_equal": "use a smaller number",
    "timezone_aware": "add an offset, for example Z",
    "one_of_several": "give one of them, and no other",
}


def field_errors(error: ValidationError, prefix: str = "") -> list[FieldError]:
    """Say what is wrong, field by field, without echoing what was sent."""
    found = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        path = [_printable(part) for part in _members(item["loc"])]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in _OF_KIND:  # Pydantic repeats what was sent
            path.append("kind")
            message = _OF_KIND[item["type"]]
        found.append(
            FieldError(
                field=".".join(([prefix] if prefix else []) + path) or "(body)",
                message=message,
                remedy=_REMEDIES.get(item["type"]),
            )
        )
    return found[:_MAX_ERRORS]


def _members(place: tuple[int | str, ...]) -> list[int | str]:
    """The place without what Pydantic adds: that a key is at fault, and as which kind of thing it took a value."""
    return [
        part
        for at, part in enumerate(place)
        if part != "[key]"
        and not (at and place[at - 1] == "workload" and part in _KINDS)
        and not (at > 1 and place[at - 2] in {"inputs", "outputs"} and part in _SOURCES)
    ]


def validated(model: type[Model], data: Any, *, what: str = "message") -> Model:
    """Validate JSON data strictly; raise `validation-failed` with every field at fault."""
    try:
        # JSON in, so that strictness has JSON's types (arrays, RFC 3339 strings), not Python's.
        return model.model_validate_json(_json(data, what))
    except ValidationError as error:
        raise _refusal(field_errors(error), what) from error


def _json(data: Any, what: str) -> bytes:
    try:
        return json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError as error:
        too_deep = FieldError(field="(body)", message="is nested too deeply")
        raise _refusal([too_deep], what) from error
    except ValueError as error:
        raise _refusal(list(islice(_unwritable(data), _MAX_ERRORS)), what) from error


def _refusal(errors: list[FieldError], what: str) -> ProblemError:
    return ProblemError(
        "validation-failed",
        f"The {what} does not fit its contract: {len(errors)} field(s) at fault, first {errors[0].field}.",
        errors=errors,
    )


def _printable(part: object) -> str:
    """A part of a path as it may stand in a log line: names of unknown members are the sender's choice."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(part)[:64])


def _unwritable(data: Any) -> Iterator[FieldError]:
    """What Python's parser reads and no JSON writer may write: lone surrogates, and numbers beyond a double."""
    waiting: list[tuple[Any, _Place]] = [(data, None)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            waiting += [(item, (place, key)) for key, item in value.items()]
            waiting += [(key, (place, key)) for key in value]
        elif isinstance(value, list):
            waiting += [(item, (place, index)) for index, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            message = "is beyond the range of a number"
            yield FieldError(field=_path(place), message=message, remedy="send a smaller number")
        elif isinstance(value, str) and _SURROGATE.search(value):
            message = "must not contain control characters (found a lone surrogate)"
            yield FieldError(field=_path(place), message=message, remedy="send whole characters")


def _path(place: _Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, part = place
        parts.insert(0, _printable(part))
    return ".".join(parts) or "(body)"
