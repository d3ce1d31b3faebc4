"""From raw JSON to a message, or to a problem that names the field and the remedy and repeats no value."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from aiida_byoc.contracts.problems import FieldError, ProblemError

__all__ = ["field_errors", "validated"]

Model = TypeVar("Model", bound=BaseModel)

_REMEDIES = {
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
}


def field_errors(error: ValidationError, prefix: str = "") -> list[FieldError]:
    """Say what is wrong, field by field, without echoing what was sent."""
    found = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        path = [str(part)[:64] for part in item["loc"] if part != "[key]"]
        message = item["msg"].removeprefix("Value error, ")
        found.append(
            FieldError(
                field=".".join(([prefix] if prefix else []) + path) or "(body)",
                message=message,
                remedy=_REMEDIES.get(item["type"]),
            )
        )
    return found[:50]


def validated(model: type[Model], data: Any, *, what: str = "message") -> Model:
    """Validate JSON data strictly; raise `validation-failed` with every field at fault."""
    try:
        # JSON in, so that strictness has JSON's types (arrays, RFC 3339 strings), not Python's.
        return model.model_validate_json(json.dumps(data, allow_nan=False))
    except ValidationError as error:
        errors = field_errors(error)
        raise ProblemError(
            "validation-failed",
            f"The {what} does not fit its contract: {len(errors)} field(s) at fault, first {errors[0].field}.",
            errors=errors,
        ) from error
    except ValueError as error:
        raise ProblemError("validation-failed", f"The {what} cannot be used: {error}.") from error
