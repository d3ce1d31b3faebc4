"""A workload that is an AiiDA work chain: named by its entry point, its inputs as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from aiida_byoc.contracts.base import Order, no_control_characters

__all__ = ["EntryPoint", "WorkchainWorkload"]

_MOST_LEVELS = 20
_MOST_EXACT = 2**53 - 1

EntryPoint = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", max_length=128)
]


def _plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Bound what no schema of an owner should have to: depth, control characters, inexact integers."""
    waiting: list[tuple[Any, int]] = [(inputs, 0)]
    while waiting:
        value, level = waiting.pop()
        if level > _MOST_LEVELS:
            raise ValueError(f"must not be nested deeper than {_MOST_LEVELS} levels")
        if isinstance(value, dict):
            waiting += [(item, level + 1) for item in value.values()]
            waiting += [(key, level + 1) for key in value]
        elif isinstance(value, list):
            waiting += [(item, level + 1) for item in value]
        elif isinstance(value, str):
            no_control_characters(value, allowed="\t\n\r")
        elif isinstance(value, int) and abs(value) > _MOST_EXACT:
            raise ValueError("must not hold integers beyond 2^53 - 1: JSON does not keep them")
    return inputs


class WorkchainWorkload(Order):
    """One work chain that the node's owner has approved, with inputs that the owner's schema admits."""

    kind: Literal["workchain"]
    entry_point: Annotated[EntryPoint, Field(description="of the group aiida.workflows")]
    inputs: Annotated[
        dict[str, JsonValue],
        Field(description="by port, as the node's policy describes them"),
        AfterValidator(_plain),
    ] = {}
