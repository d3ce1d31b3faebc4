"""JSON to the inputs of a process: each value becomes the node that its port wants."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from typing import Any

from aiida.common import NotExistent
from aiida.engine.processes.ports import PortNamespace
from aiida.orm import (
    AbstractCode,
    Bool,
    Data,
    Dict,
    Float,
    Int,
    List,
    SinglefileData,
    Str,
    load_code,
)

__all__ = ["PortError", "inputs_of_json", "put"]

_OF_JSON: dict[type, tuple[type[Data], ...]] = {
    bool: (Bool,),
    int: (Int, Float),
    float: (Float,),
    str: (Str,),
    list: (List,),
    dict: (Dict,),
}
"""JSON's types to AiiDA's; the first that the port takes."""


class PortError(ValueError):
    """An input does not fit its port."""


def inputs_of_json(
    ports: PortNamespace, values: Mapping[str, Any], *, codes: Collection[str], place: str = ""
) -> dict[str, Any]:
    """The inputs for a namespace of ports.

    Args:
        codes: labels of the codes that may be named.
        place: the namespace's own place, for messages.

    Raises:
        PortError: a value does not fit its port; the message names the port, and repeats no value.
    """
    inputs = {}
    for name, value in values.items():
        here = f"{place}.{name}" if place else name
        port = ports.get(name)
        if port is None and not ports.dynamic:
            raise PortError(f"there is no input {here}")
        if isinstance(port, PortNamespace):
            if not isinstance(value, Mapping):
                raise PortError(f"the input {here} is a namespace and needs an object")
            inputs[name] = inputs_of_json(port, value, codes=codes, place=here)
        elif port is not None and getattr(port, "non_db", False):
            inputs[name] = value
        else:
            wanted = port.valid_type if port is not None else ports.valid_type
            inputs[name] = _node(wanted, value, codes=codes, place=here)
    return inputs


def put(values: dict[str, Any], place: str, value: Any, *, wins: bool = False) -> None:
    """Set a value at a dotted place; of two objects the members are merged.

    Args:
        wins: whether it counts where something else is there already.
    """
    *parents, last = place.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    there = values.get(last)
    if isinstance(value, Mapping) and isinstance(there, Mapping):
        values[last] = {**there, **value} if wins else {**value, **there}
    elif wins or last not in values:
        values[last] = value


def _node(wanted: Any, value: Any, *, codes: Collection[str], place: str) -> Any:
    types = wanted if isinstance(wanted, tuple) else (wanted or Data,)
    if isinstance(value, str) and _wants(types, AbstractCode):
        return _code(value, codes, place)
    if isinstance(value, Mapping) and _wants(types, SinglefileData):
        if set(value) != {"filename", "text"}:
            raise PortError(f"the input {place} is a file and needs filename and text")
        content = io.BytesIO(str(value["text"]).encode())
        return SinglefileData(content, filename=str(value["filename"]))
    if isinstance(value, float) and value.is_integer() and not _takes(types, Float):
        value = int(value)  # JSON has one kind of number
    for kind in _OF_JSON.get(type(value), ()):
        if _takes(types, kind):
            return kind(value)
    raise PortError(f"the input {place} does not take this type of value")


def _wants(types: tuple[type, ...], kind: type) -> bool:
    return any(issubclass(each, kind) for each in types)


def _takes(types: tuple[type, ...], kind: type) -> bool:
    return issubclass(kind, types)


def _code(label: str, codes: Collection[str], place: str) -> AbstractCode:
    if label not in codes:
        raise PortError(f"the input {place} names a code that the node's policy does not list")
    try:
        return load_code(label)
    except NotExistent as error:
        raise PortError(f"the code of the input {place} is not on this node") from error
