"""Files of a container: what is put into its working directory before it starts, what it promises to leave there."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from aiida_byoc.contracts.base import PLAIN, Order, no_control_characters

__all__ = [
    "InputFile",
    "OutputFile",
    "OutputPattern",
    "PromisedOutput",
]

_PATH_PART_BYTES = 255
_MAGIC = set("*?[]\\")
_PART_OF_PATTERN = re.compile(r"(?:[^\[\]\\]|\[!?[^\[\]!\\]+\])+")


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


def _pattern(value: str) -> str:
    for part in value.split("/"):
        if "**" in part and part != "**":
            raise ValueError("must have '**' as a whole part of the path, or not at all")
        if not _PART_OF_PATTERN.fullmatch(part):
            raise ValueError("must close each '[' after at least one character, without '\\'")
    return value


_INSIDE = (Field(min_length=1, max_length=512), PLAIN, AfterValidator(_relative))

RelativePath = Annotated[str, *_INSIDE, AfterValidator(_literal)]
"""A path below the job's working directory `/work`."""

RelativePattern = Annotated[str, *_INSIDE, AfterValidator(_pattern)]
"""Paths below `/work`: `*`, `?` and `[…]` within a part, `**` for any number of parts."""


class InputFile(Order):
    """A text file put below `/work` before the container starts."""

    name: RelativePath
    text: Annotated[
        str,
        Field(max_length=128 * 1024, description="content, written as UTF-8"),
        AfterValidator(lambda text: no_control_characters(text, allowed="\t\n\r")),
    ]


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


PromisedOutput = Annotated[
    Annotated[OutputFile, Tag("name")] | Annotated[OutputPattern, Tag("glob")],
    _one_of("name", "glob"),
]
