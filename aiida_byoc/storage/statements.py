"""AiiDA's queries as statements, each shape built once.

A worker asks some 50 queries for a job, of 20 shapes, which differ in the node that they ask for. AiiDA builds each
anew, which takes a worker 2 ms (measured).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiida.orm.implementation.querybuilder import QueryDictType
from aiida.storage.psql_dos.orm.querybuilder.main import BuiltQuery
from sqlalchemy import BindParameter, Select, bindparam

__all__ = ["Statements"]

_MOST = 256
"""Shapes that are kept, after which all are forgotten: a program of a user's may make any number."""
_NODES = ("id", "uuid")
"""Fields whose values are no part of the shape: they say which node is asked for."""


class Statements:
    """The statements of one storage."""

    def __init__(self) -> None:
        self._built: dict[str, Select[Any]] = {}

    def find(
        self, data: QueryDictType, build: Callable[[QueryDictType], BuiltQuery]
    ) -> tuple[Select[Any], dict[str, Any]]:
        """Return the statement of a query, and the values to send with it.

        Args:
            build: AiiDA's own way, for a query of which there is none yet.
        """
        values: dict[str, Any] = {}
        shape: Any = {**data}
        shape["filters"] = {
            tag: {field: _opened(field, asked, values) for field, asked in filters.items()}
            for tag, filters in data["filters"].items()
        }
        try:
            key = json.dumps(shape, default=_name)
        except TypeError:  # by a time, for example
            return build(data).query.statement, {}
        statement = self._built.get(key)
        if statement is None:
            if len(self._built) >= _MOST:
                self._built.clear()
            statement = self._built[key] = build(shape).query.statement
        return statement, values


def _opened(field: str, asked: Any, values: dict[str, Any]) -> Any:
    """That filter with a parameter for its value, which is added to the others; or as it was."""
    if field not in _NODES:
        return asked
    value = asked.get("==") if isinstance(asked, dict) and len(asked) == 1 else asked
    if not isinstance(value, int | str):
        return asked
    parameter: BindParameter[Any] = bindparam(f"node_{len(values)}")
    values[parameter.key] = value
    return {"==": parameter}


def _name(parameter: object) -> str:
    if isinstance(parameter, BindParameter):
        return parameter.key
    raise TypeError(parameter)
