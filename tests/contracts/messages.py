"""The golden messages: one valid message per surface and state, and which model reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.schemas import SURFACES
from aiida_byoc.contracts.validation import validated

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "docs" / "contracts"
EXAMPLES = DOCUMENTS / "examples"

MODELS: dict[str, type[BaseModel]] = {
    name.partition(".")[0]: model for name, model in SURFACES.items()
}
"""First word of a golden file's name (before the first dot) → the model that must read it for ever."""


def golden(name: str) -> Any:
    """A fresh copy of the golden message `docs/contracts/examples/<name>.v1.json`."""
    return json.loads((EXAMPLES / f"{name}.v1.json").read_text())


def golden_names() -> list[str]:
    """Every golden message, without `.v1.json`."""
    return sorted(path.name.removesuffix(".v1.json") for path in EXAMPLES.iterdir())


def changed(message: Any, path: str, value: Any) -> Any:
    """`message` with the field at the dotted `path` set, or removed when `value` is `...`."""
    *parents, last = path.split(".")
    place = message
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return message


def refused(model: type[BaseModel], message: Any) -> ProblemError:
    """Validate `message` and return the `validation-failed` that it must end in."""
    with pytest.raises(ProblemError) as caught:
        validated(model, message)
    assert caught.value.kind.name == "validation-failed"
    return caught.value
