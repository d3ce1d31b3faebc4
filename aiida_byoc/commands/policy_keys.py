"""Every table and key of `policy.toml`, read off the models: for advice on mistakes, and to hold the reference to."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from aiida_byoc.commands.policy import Policy, contents
from aiida_byoc.contracts.problems import FieldError
from aiida_byoc.contracts.validation import field_errors

__all__ = ["Key", "advice_on", "keys", "mistakes"]

_NAMES = {
    "images": "repository",
    "queues": "name",
    "tenants": "tenant",
    "workchains": "entry point",
}
"""What the owner names such a table by."""


@dataclass(frozen=True)
class Key:
    """One key of the file.

    Attributes:
        table: dotted, with `<…>` for names of the owner's choice; "" for the top.
        default: what counts without it; `None`: nothing does.
        required: it must be there.
    """

    table: str
    name: str
    default: object
    required: bool


def keys() -> list[Key]:
    """All of them, table by table; tables are no keys."""
    return list(_keys_of(Policy, ""))


def mistakes(path: Path) -> list[FieldError]:
    """What keeps the node from using the file, key by key; no value is repeated.

    Raises:
        PolicyError: it cannot be read, or is no TOML.
    """
    try:
        Policy.model_validate(contents(path))
    except ValidationError as error:
        unknown = {
            ".".join(map(str, item["loc"])): item["loc"]
            for item in error.errors(include_input=False, include_url=False)
            if item["type"] == "extra_forbidden"
        }
        return [_told(each, unknown.get(each.field)) for each in field_errors(error)]
    return []


def _told(error: FieldError, place: Sequence[str | int] | None) -> FieldError:
    """The error in the words of a file; what `field_errors` advises is for JSON."""
    if place is None:
        remedy = "add the key" if error.message == "Field required" else None
        return error.model_copy(update={"remedy": remedy})
    return FieldError(field=error.field, message="is no key of the policy", remedy=advice_on(place))


def advice_on(path: Sequence[str | int]) -> str | None:
    """What may have been meant by a key that nobody knows; `None` where the place itself is unknown."""
    *above, name = path
    table = _table(above)
    if table is None:
        return None
    near = difflib.get_close_matches(str(name), table.model_fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [key for key in keys() if key.name == name]
    if elsewhere:
        return (
            f"it belongs into [{elsewhere[0].table}]"
            if elsewhere[0].table
            else "it is a key of the file itself"
        )
    return f"use one of: {', '.join(table.model_fields)}"


def _keys_of(model: type[BaseModel], table: str) -> Iterator[Key]:
    below = []
    for name, field in model.model_fields.items():
        place = f"{table}.{name}" if table else name
        inner = _model_in(field.annotation)
        if inner is not None:
            if _is_by_name(field.annotation):
                place = f"{place}.<{_NAMES[name]}>"
            below.append((inner, place))
            continue
        default = field.get_default(call_default_factory=True)
        required = default is PydanticUndefined
        yield Key(table, name, None if required else default, required)
    for inner, place in below:
        yield from _keys_of(inner, place)


def _table(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the table at this place."""
    here: Any = Policy
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = _plain(field.annotation) if field else None
        elif _is_by_name(here):
            here = _plain(get_args(here)[1])
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    annotation = _plain(annotation)
    if _is_by_name(annotation):
        annotation = _plain(get_args(annotation)[1])
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _is_by_name(annotation: Any) -> bool:
    return get_origin(_plain(annotation)) is dict


def _plain(annotation: Any) -> Any:
    """Without its constraints, and without `None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        known = [each for each in get_args(annotation) if each is not type(None)]
        return _plain(known[0]) if len(known) == 1 else annotation
    return annotation
