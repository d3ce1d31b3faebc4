"""A job's crate on disk: the files from AiiDA's repository, each held against the receipt as it is copied."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from aiida.common import NotExistent
from aiida.orm import CalcJobNode, FolderData, SinglefileData, load_node

from aiida_byoc.contracts.receipt.envelope import Envelope
from aiida_byoc.contracts.receipt.statement import Calculation, JobRun
from aiida_byoc.contracts.receipt.verification import ReceiptError, envelope_text
from aiida_byoc.receipts.crate import COMMAND, METADATA, RECEIPT, metadata
from aiida_byoc.runtimes import in_job

__all__ = ["export"]

_BLOCK = 1 << 20
_Part = tuple[str, Any, str, str | None]
"""Place in the crate, node of AiiDA, path of the file in it, and the SHA-256 that the receipt names."""


def export(receipt: Envelope, target: Path) -> None:
    """Write the crate of that job to a directory that is not there yet, or to a new `.zip`.

    Raises:
        ReceiptError: the target is there already or cannot be written, or AiiDA's repository does not hold what the
            receipt says.
    """
    if target.exists():
        raise ReceiptError(f"{target} is there already; name another")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".crate-") as place:
            crate = Path(place) / "crate"
            crate.mkdir()
            _fill(crate, receipt)
            if target.suffix == ".zip":
                packed = Path(place) / "crate.zip"
                _pack(crate, packed)
                packed.rename(target)
            else:
                crate.rename(target)
    except OSError as error:
        raise ReceiptError(f"{target} cannot be written: {error.strerror}") from error


def _fill(crate: Path, receipt: Envelope) -> None:
    statement = receipt.claim()
    assert statement is not None  # noqa: S101  (the node has just made it)
    command = _command(statement.predicate)
    files = {RECEIPT: _put(crate, RECEIPT, io.BytesIO(envelope_text(receipt).encode()))}
    if command:
        text = json.dumps(command, indent=2) + "\n"
        files[COMMAND] = _put(crate, COMMAND, io.BytesIO(text.encode()))
    for place, node, name, expected in _parts(statement.predicate):
        with node.base.repository.open(name, "rb") as source:
            files[place] = _put(crate, place, source)
        if expected is not None and files[place]["sha256"] != expected:
            raise ReceiptError(f"AiiDA's repository does not hold {place} as the receipt says")
    document = metadata(statement, command, files)
    (crate / METADATA).write_text(json.dumps(document, indent=2) + "\n")


def _command(run: JobRun) -> dict[str, Any]:
    """The accepted command, from provenance; a job that was never launched has none there."""
    if run.execution_id is None:
        return {}
    command: dict[str, Any] = load_node(run.execution_id).inputs.command.get_dict()
    return command


def _parts(run: JobRun) -> Iterator[_Part]:
    calculations = [(each, load_node(each.uuid)) for each in run.calculations]
    for number, (each, node) in enumerate(calculations, start=1):
        yield from _of_attempt(f"attempts/{number}", each, node)
    if calculations:
        each, node = calculations[-1]
        kept = _output(node, "outputs")
        for output in each.outputs if kept is not None else ():
            if output.location == "repository":
                yield f"outputs/{output.name}", kept, output.name, output.sha256
        yield from _inputs(run, node)


def _of_attempt(place: str, each: Calculation, node: CalcJobNode) -> Iterator[_Part]:
    if each.script is not None:
        yield f"{place}/script.sh", node, node.get_option("submit_script_filename"), each.script
    retrieved = _output(node, "retrieved")
    if retrieved is not None:
        told = {"stdout": each.stdout, "stderr": each.stderr, in_job.RECORD: each.record}
        for name, digest in told.items():
            if digest is not None:
                yield f"{place}/{name}", retrieved, name, digest


def _inputs(run: JobRun, node: CalcJobNode) -> Iterator[_Part]:
    given = node.base.links.get_incoming().all()
    by_label = {link.link_label: link.node for link in given}
    for index, each in enumerate(run.inputs):
        text = by_label.get(f"nodes__input_{index:03d}")
        earlier = by_label.get(f"given__input_{index:03d}")
        if isinstance(text, SinglefileData):
            yield f"inputs/{each.name}", text, text.filename, each.sha256
        elif isinstance(earlier, FolderData) and each.source is not None:
            yield f"inputs/{each.name}", earlier, each.source.partition("/")[2], each.sha256


def _output(node: CalcJobNode, label: str) -> FolderData | None:
    try:
        found = node.outputs[label]
    except (NotExistent, KeyError):
        return None
    return found if isinstance(found, FolderData) else None


def _put(crate: Path, name: str, source: IO[bytes]) -> dict[str, Any]:
    """Copy, and say what was copied."""
    target = crate / name
    if ".." in target.relative_to(crate).parts:
        raise ReceiptError(f"the file {name} has no place in a crate")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as copy:
        while block := source.read(_BLOCK):
            digest.update(block)
            size += copy.write(block)
    return {"size": size, "sha256": digest.hexdigest()}


def _pack(crate: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(crate.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(crate))
