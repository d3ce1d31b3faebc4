"""Files of a container: what is put into its working directory before it starts, what it promises to leave there."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from aiida_byoc.contracts.base import PLAIN, Order, no_control_characters
from aiida_byoc.contracts.identity import Name

__all__ = [
    "EarlierOutput",
    "InputFile",
    "JobInput",
    "OutputFile",
    "OutputPattern",
    "PathInput",
    "PromisedOutput",
    "TextInput",
    "UrlInput",
]

_PATH_PART_BYTES = 255
_MAGIC = set("*?[]\\")
_WORDS_OF_RUNTIMES = set(":,{}")
_LAST_PORT = 65535
_PART_OF_PATTERN = re.compile(r"(?:[^\[\]\\]|\[!?[^\[\]!\\]+\])+")

_URL = r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?([/?][!$-\[\]-~]*)?$"


def _relative(value: str) -> str:
    if unicodedata.normalize("NFC", value) != value:
        raise ValueError("must be in Unicode normal form NFC")
    for part in value.split("/"):
        if part in {"", ".", ".."}:
            raise ValueError("must be a relative path without empty, '.' or '..' parts")
        if part.startswith("-"):
            raise ValueError("no part of the path may begin with '-'")
        if len(part.encode()) > _PATH_PART_BYTES:
            raise ValueError(f"no part of the path may exceed {_PATH_PART_BYTES} bytes")
    return value


def _literal(value: str) -> str:
    if set(value) & _MAGIC:
        raise ValueError("must not contain any of * ? [ ] \\")
    return value


def _mountable(value: str) -> str:
    if set(value) & _WORDS_OF_RUNTIMES:
        raise ValueError("must not contain any of : , { }")
    return value


def _pattern(value: str) -> str:
    for part in value.split("/"):
        if "**" in part and part != "**":
            raise ValueError("must have '**' as a whole part of the path, or not at all")
        if not _PART_OF_PATTERN.fullmatch(part):
            raise ValueError("must close each '[' after at least one character, without '\\'")
    return value


def _absolute(value: str) -> str:
    root, *parts = value.split("/")
    if root or not parts or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be an absolute path without empty, '.' or '..' parts")
    return value


def _https_url(value: str) -> str:
    found = re.fullmatch(_URL[1:-1], value)
    if found is None or int((found[2] or ":443")[1:]) > _LAST_PORT:
        raise ValueError(
            "must be https://host[:port]/…, the host in lower case, all in ASCII, without user and fragment"
        )
    return value


_INSIDE = (Field(min_length=1, max_length=512), PLAIN, AfterValidator(_relative))

RelativePath = Annotated[str, *_INSIDE, AfterValidator(_literal)]
"""A path below the job's working directory `/work`."""

FixedPath = Annotated[str, *_INSIDE, AfterValidator(_literal), AfterValidator(_mountable)]
"""A path below `/work` at which something is put that the container cannot change."""

RelativePattern = Annotated[str, *_INSIDE, AfterValidator(_pattern)]
"""Paths below `/work`: `*`, `?` and `[…]` within a part, `**` for any number of parts."""


AbsolutePath = Annotated[
    str, Field(min_length=2, max_length=4096), PLAIN, AfterValidator(_absolute)
]
"""A path of the node's cluster."""

HttpsUrl = Annotated[
    str,
    Field(
        max_length=2048,
        json_schema_extra={"pattern": _URL},
        examples=["https://data.example/set/1.csv"],
    ),
    AfterValidator(_https_url),
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TextInput(Order):
    """A text file."""

    name: RelativePath
    text: Annotated[
        str,
        Field(max_length=128 * 1024, description="content, written as UTF-8"),
        AfterValidator(lambda text: no_control_characters(text, allowed="\t\n\r")),
    ]


class EarlierOutput(Order):
    """One file that an earlier job of the same tenant and workspace leaves on the same node."""

    job_id: Name
    output: RelativePath


class JobInput(Order):
    """What an earlier job left; it must succeed first."""

    name: FixedPath
    job: EarlierOutput


class PathInput(Order):
    """A file or directory of a shared place that the node's owner lets jobs read."""

    name: FixedPath
    path: AbsolutePath
    sha256: Sha256 | None = None


class UrlInput(Order):
    """A file that the node fetches by HTTPS, from a host that its owner allows."""

    name: FixedPath
    url: HttpsUrl
    sha256: Sha256


class OutputFile(Order):
    """A file that the job promises to leave."""

    name: RelativePath
    required: bool = True


class OutputPattern(Order):
    """Files that the job promises to leave; at least one."""

    glob: RelativePattern
    required: bool = True


def _one_of(*names: str) -> Discriminator:
    """Which of these members an object has, if it has one."""

    def chosen(value: Any) -> str | None:
        if not isinstance(value, dict):
            return next((name for name in names if hasattr(value, name)), names[0])
        given = [name for name in names if name in value]
        return given[0] if len(given) == 1 else None

    listed = ", ".join(names[:-1])
    return Discriminator(
        chosen,
        custom_error_type="one_of_several",
        custom_error_message=f"must have exactly one of {listed} or {names[-1]}",
    )


InputFile = Annotated[
    Annotated[TextInput, Tag("text")]
    | Annotated[JobInput, Tag("job")]
    | Annotated[PathInput, Tag("path")]
    | Annotated[UrlInput, Tag("url")],
    _one_of("text", "job", "path", "url"),
]

PromisedOutput = Annotated[
    Annotated[OutputFile, Tag("name")] | Annotated[OutputPattern, Tag("glob")],
    _one_of("name", "glob"),
]
