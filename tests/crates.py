"""The rules of RO-Crate 1.2 and Process Run Crate 0.5 that a crate of ours must keep, without their validators."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["broken", "entities"]

_INSTANT = re.compile(r"^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{3})?\+\d\d:\d\d)?$")
_STATUS = "http://schema.org/{}ActionStatus"
_NEEDED = {
    "File": ("name", "contentSize", "encodingFormat"),
    "CreateAction": ("name", "instrument", "endTime", "actionStatus", "description"),
    "SoftwareApplication": ("name", "url", "version"),
    "ContainerImage": ("name", "registry", "sha256", "additionalType"),
    "PropertyValue": ("name", "value"),
    "Person": ("name",),
    "Organization": ("name",),
}


def entities(crate: Path) -> dict[str, dict[str, Any]]:
    """What the crate's document describes, by `@id`."""
    document = json.loads((crate / "ro-crate-metadata.json").read_text())
    return {each["@id"]: each for each in document["@graph"]}


def broken(crate: Path) -> Iterator[str]:
    """What is not as it has to be, a sentence each."""
    document = json.loads((crate / "ro-crate-metadata.json").read_text())
    graph = document["@graph"]
    described = {each["@id"]: each for each in graph}
    if len(described) != len(graph):
        yield "an @id comes twice"
    yield from _of_the_root(described)
    for each in graph:
        yield from _of_an_entity(each, described)
    yield from _of_the_files(crate, described)


def _of_the_root(described: dict[str, dict[str, Any]]) -> Iterator[str]:
    descriptor, root = described["ro-crate-metadata.json"], described["./"]
    if descriptor["conformsTo"] != {"@id": "https://w3id.org/ro/crate/1.2"}:
        yield "the document says no version"
    if descriptor["about"] != {"@id": "./"}:
        yield "the document is about something else"
    for name in ("name", "description", "datePublished", "license", "publisher"):
        if not root.get(name):
            yield f"the crate has no {name}"
    if "Profile" not in described[root["conformsTo"]["@id"]]["@type"]:
        yield "the crate conforms to no profile"
    parts = {each["@id"] for each in _many(root["hasPart"])}
    files = {name for name, each in described.items() if each["@type"] == "File"}
    if parts != files:
        yield f"the crate's parts are not its files: {parts ^ files}"
    actions = {name for name, each in described.items() if each["@type"] == "CreateAction"}
    if not actions or {each["@id"] for each in _many(root["mentions"])} != actions:
        yield "the crate does not mention its actions"


def _of_an_entity(each: dict[str, Any], described: dict[str, dict[str, Any]]) -> Iterator[str]:
    name, kind = each["@id"], each["@type"]
    needed = _NEEDED.get(kind, ()) if isinstance(kind, str) else ()
    if not name.startswith("https://"):
        yield from (f"{name} has no {member}" for member in needed if not each.get(member))
    for member, value in each.items():
        if isinstance(value, list) and member != "@type" and len(value) < 2:
            yield f"{name}: {member} is an array of {len(value)}"
        for one in _many(value):
            target = one.get("@id") if isinstance(one, dict) else None
            is_ours = target is not None and not target.startswith("https://")
            if is_ours and target not in described:
                yield f"{name}: {member} leads to {target}, which is not described"
        if member in {"startTime", "endTime", "datePublished"} and not _INSTANT.match(value):
            yield f"{name}: {member} is no time"
    if kind == "CreateAction":
        yield from _of_an_action(each, described)


def _of_an_action(each: dict[str, Any], described: dict[str, dict[str, Any]]) -> Iterator[str]:
    name, status = each["@id"], each["actionStatus"]
    if described[each["instrument"]["@id"]]["@type"] != "SoftwareApplication":
        yield f"{name} has an instrument that is no software"
    if (status == _STATUS.format("Failed")) != ("error" in each):
        yield f"{name} has an error without having failed, or the other way round"
    if status not in {_STATUS.format("Failed"), _STATUS.format("Completed")}:
        yield f"{name} has no status"


def _of_the_files(crate: Path, described: dict[str, dict[str, Any]]) -> Iterator[str]:
    there = {str(path.relative_to(crate)) for path in crate.rglob("*") if path.is_file()}
    told = {
        unquote(name): each
        for name, each in described.items()
        if each["@type"] == "File" and not name.startswith("https://")
    }
    if there - {"ro-crate-metadata.json"} != set(told):
        yield f"the document does not name what is there: {there ^ set(told)}"
    for name in there & set(told):
        content = (crate / name).read_bytes()
        if told[name].get("contentSize") != str(len(content)):
            yield f"{name} has another size"
        if told[name].get("sha256") != hashlib.sha256(content).hexdigest():
            yield f"{name} has another hash"


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
