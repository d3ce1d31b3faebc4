"""What an approved work chain returned, in the words of the contract: small values as text, files by their hash."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from aiida.common.links import LinkType
from aiida.orm import Bool, Dict, Float, Int, List, Node, ProcessNode, SinglefileData, Str

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.canonical import canonical_json

__all__ = ["result_of"]

_MOST = 64
_MOST_OF_ONE = 4096
_MOST_OF_ALL = 16 * 1024
"""Characters, so that an event with its full state stays below what a product takes."""


def result_of(node: ProcessNode, ended: datetime) -> dict[str, Any]:
    """The facts of a work chain that ended; a `result` only if it succeeded."""
    facts: dict[str, Any] = {"timings": {"ended": utc_now_text(ended)}}
    if node.exit_status == 0:
        links = node.base.links.get_outgoing(link_type=LinkType.RETURN).all()
        returned = sorted((link.link_label, link.node) for link in links)
        facts["result"] = {
            "exit_code": 0,
            "outputs": list(_files(returned)),
            "values": list(_values(returned)),
        }
    return facts


def _files(returned: list[tuple[str, Node]]) -> Iterator[dict[str, Any]]:
    files = [(label, node) for label, node in returned if isinstance(node, SinglefileData)]
    for label, node in files[:_MOST]:
        # The repository keeps files by their SHA-256.
        (key,) = node.base.repository.metadata["o"].values()
        with node.open(mode="rb") as file:
            size = file.seek(0, 2)
        yield {"name": label, "size": size, "sha256": key["k"]}


def _values(returned: list[tuple[str, Node]]) -> Iterator[dict[str, str]]:
    room = _MOST_OF_ALL
    for label, node in returned[:_MOST]:
        text = _text(node)
        if text is not None and len(text) <= min(room, _MOST_OF_ONE):
            room -= len(text)
            yield {"name": label, "json_text": text}


def _text(node: Node) -> str | None:
    value: Any
    if isinstance(node, Bool | Int | Float | Str):
        value = node.value
    elif isinstance(node, Dict):
        value = node.get_dict()
    elif isinstance(node, List):
        value = node.get_list()
    else:
        return None
    try:
        return canonical_json(value).decode()
    except ValueError:  # what JSON cannot say, such as NaN
        return None
