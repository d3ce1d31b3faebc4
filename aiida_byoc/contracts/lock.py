"""What a version has promised, and whether it still holds: `python -m aiida_byoc.contracts.lock docs/contracts`.

`lock.json` beside the pages remembers every golden message, what every field accepts and what its page says of it,
every problem and every state. The command adds what is new, and refuses what would give a version another meaning.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida_byoc.contracts.lifecycle import PRODUCT_STATE, SUCCESSORS
from aiida_byoc.contracts.problems import CATALOGUE
from aiida_byoc.contracts.schemas import SURFACES

__all__ = ["LOCK", "Promises", "broken", "promises", "stale"]

Promises = dict[str, Any]
LOCK = "lock.json"
COMMAND = "run `.venv/bin/python -m aiida_byoc.contracts.lock docs/contracts`"
_TABLE = re.compile(r"<!-- fields: (\w+) -->\n\n((?:\|.*\n)+)")
_PROSE = {"description", "title", "examples"}


def promises(documents: Path) -> Promises:
    """What holds now, by the code and by the pages and golden messages of a directory."""
    return {
        "goldens": {
            path.name: _digest(path.read_bytes())
            for path in sorted((documents / "examples").iterdir())
        },
        "fields": dict(_fields(documents)),
        "problems": {kind.name: f"{kind.status} retry={kind.retry}" for kind in CATALOGUE.values()},
        "states": {
            str(state): f"users see {shown}; then {', '.join(sorted(SUCCESSORS[state]))}"
            for state, shown in PRODUCT_STATE.items()
        },
    }


def broken(before: Promises, now: Promises, widened: frozenset[str] = frozenset()) -> list[str]:
    """What was promised and does not hold, each with what to do.

    Args:
        widened: fields, as `Model.field`, that accept more than before, and all that they accepted before.
    """
    return [
        *_goldens(before["goldens"], now["goldens"]),
        *_changed_fields(before["fields"], now["fields"], widened),
        *_changed_words("problem", before["problems"], now["problems"]),
        *_changed_words("state", before["states"], now["states"]),
    ]


def stale(before: Promises, now: Promises) -> list[str]:
    """What is new or worded anew, and not in the lock yet."""
    return [
        f"{kind} {name} is not in docs/contracts/{LOCK} as it is now: {COMMAND}"
        for kind, each in now.items()
        for name, value in each.items()
        if before[kind].get(name) != value
    ]


def _goldens(before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name, digest in before.items():
        if now.get(name) != digest:
            what = "changed" if name in now else "deleted"
            yield (
                f"examples/{name} was {what}, but golden messages are only ever added: restore it, and add another "
                "file beside it; if it is not valid any more, its surface has a new version, with files of its own"
            )


def _changed_fields(
    before: dict[str, str], now: dict[str, str], widened: frozenset[str]
) -> Iterator[str]:
    models = {name.partition(".")[0] for name in before}
    for name, old in before.items():
        if name not in now:
            yield f"{name} was removed: {_version('leave it, since readers count on it')}"
            continue
        accepted, _, row = old.rpartition(" ")
        accepts, _, new_row = now[name].rpartition(" ")
        if accepts != accepted and name not in widened:
            yield (
                f"{name} accepts something else than this version says: {_version('leave it as it was')}; if it "
                f"accepts all that it did and more, {COMMAND} with --widened {name}='why readers bear it'"
            )
        if accepts != accepted and row == new_row:
            yield f"{name} accepts something else, and its page says what it said before: correct its row"
    for name, new in now.items():
        if name not in before and name.partition(".")[0] in models and new.startswith("required"):
            yield f"{name} is new and required: {_version('make it optional')}"


def _changed_words(kind: str, before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name, said in before.items():
        if now.get(name) != said:
            yield f"the {kind} {name} was `{said}` and is `{now.get(name, 'gone')}`: {_version('leave it as it was')}"


def _version(otherwise: str) -> str:
    return f"{otherwise}, or give its surface a new version (a model, a schema, golden messages and a page of its own)"


def _fields(documents: Path) -> Iterator[tuple[str, str]]:
    """Each field of each record: whether it is required, digests of what it accepts and of its row in the page."""
    rows = dict(_rows(documents))
    parts: dict[str, dict[str, Any]] = {}
    for model in SURFACES.values():
        schema = model.model_json_schema()
        parts |= {**schema.pop("$defs", {}), model.__name__: schema}
    for record, schema in parts.items():
        for name, field in schema.get("properties", {}).items():
            required = "required" if name in schema.get("required", []) else "optional"
            accepts = json.dumps(_bare(field, parts), sort_keys=True).encode()
            row = rows.get(f"{record}.{name}", "").encode()
            yield f"{record}.{name}", f"{required} {_digest(accepts)[:16]} {_digest(row)[:16]}"


def _rows(documents: Path) -> Iterator[tuple[str, str]]:
    for page in sorted(documents.glob("*.md")):
        for model, table in _TABLE.findall(page.read_text()):
            for row in table.splitlines()[2:]:
                yield f"{model}.{row.split('|')[1].strip().strip('`')}", row


def _bare(schema: Any, parts: dict[str, dict[str, Any]]) -> Any:
    """A field's schema without prose; an enumeration in place of its name, a record by its name."""
    if isinstance(schema, list):
        return [_bare(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return schema
    named = parts.get(schema.get("$ref", "").rpartition("/")[2], {})
    if "enum" in named:
        schema = named
    return {key: _bare(value, parts) for key, value in schema.items() if key not in _PROSE}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _widened(text: str) -> tuple[str, str]:
    name, _, why = text.partition("=")
    if not re.fullmatch(r"\w+\.\w+", name) or not why.strip():
        raise argparse.ArgumentTypeError(
            "must be Model.field='why readers of this version bear it'"
        )
    return name, why.strip()


def main(argv: list[str]) -> int:
    """Add what is new to the lock; 1, and nothing is written, where a promise would be broken."""
    parser = argparse.ArgumentParser(prog="aiida_byoc.contracts.lock", description=__doc__)
    parser.add_argument("documents", type=Path, help="the directory of the contract pages")
    parser.add_argument(
        "--widened", type=_widened, action="append", default=[], metavar="MODEL.FIELD=WHY"
    )
    options = parser.parse_args(argv)
    lock = options.documents / LOCK
    now = promises(options.documents)
    before = json.loads(lock.read_text()) if lock.exists() else {**now, "widened": []}
    told = [{"field": field, "why": why} for field, why in options.widened]
    if found := broken(before, now, frozenset(each["field"] for each in told)):
        sys.stderr.write("".join(f"{each}\n" for each in found))
        return 1
    whole = {**now, "widened": [*before["widened"], *told]}
    lock.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
