"""A job as an RO-Crate 1.2 by the profile Process Run Crate: its `ro-crate-metadata.json`.

https://w3id.org/ro/crate/1.2, https://w3id.org/ro/wfrun/process/0.5. Pure: what is told is in the receipt, the command
and the list of files; what a file is follows from its place.
"""

from __future__ import annotations

import mimetypes
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from aiida_byoc.contracts.receipt.statement import Calculation, JobRun, Statement

__all__ = ["COMMAND", "METADATA", "RECEIPT", "metadata"]

METADATA = "ro-crate-metadata.json"
RECEIPT = "receipt.json"
COMMAND = "command.json"
_CRATE = "https://w3id.org/ro/crate/1.2"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run"
_STATUS = {
    "succeeded": "http://schema.org/CompletedActionStatus",
    "failed": "http://schema.org/FailedActionStatus",
    "cancelled": "http://schema.org/FailedActionStatus",
}
_PLACES = {
    RECEIPT: "What ran, signed by the node (DSSE, in-toto Statement).",
    COMMAND: "The SubmitJobCommand that the node accepted.",
    "inputs": "An input, as each attempt was given it.",
    "outputs": "An output, as the last attempt left it.",
    "attempts": "Of an attempt: its batch script, its streams, or its completion record.",
}
Entity = dict[str, Any]


def metadata(
    statement: Statement, command: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> Entity:
    """The whole document.

    Args:
        command: the accepted SubmitJobCommand; empty where it is forgotten.
        files: what is in the crate beside this document: path → `size` in bytes and `sha256`.
    """
    run = statement.predicate
    elsewhere = list(_elsewhere(run, files))
    actions = list(_actions(run, command, files, elsewhere))
    parts = [_file(path, facts) for path, facts in sorted(files.items())]
    parts += [each for each in elsewhere if each["@type"] == "File"]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Job {run.job_id} of {run.tenant_id}/{run.workspace_id}",
        "description": f"A job that {run.state} on the management node {run.node_id}: what it was asked for, what it"
        f" was given, what it left, and the node's signed receipt ({RECEIPT}).",
        "datePublished": _second(run.ended_at),
        "license": {"@id": "#license"},
        "identifier": {"@id": "#submission"},
        "publisher": {"@id": "#node"},
        "conformsTo": {"@id": _PROFILE},
        "hasPart": _one_or_many({"@id": part["@id"]} for part in parts),
        "mentions": _one_or_many({"@id": action["@id"]} for action in actions),
    }
    entities = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "conformsTo": {"@id": _CRATE},
            "about": {"@id": "./"},
        },
        root,
        {
            "@id": _PROFILE,
            "@type": ["CreativeWork", "Profile"],
            "name": "Process Run Crate",
            "version": _PROFILE.rpartition("/")[2],
        },
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": "Not stated",
            "description": f"Whoever owns the data of {run.tenant_id} says how they may be used.",
        },
        {"@id": "#node", "@type": "Organization", "name": f"The management node {run.node_id}"},
        {
            "@id": "#submission",
            "@type": "PropertyValue",
            "name": "submission_id",
            "propertyID": "https://aiida-byoc.org/receipt/v1#submission_id",
            "value": f"urn:uuid:{run.submission_id}",
        },
        *actions,
        *_around(run, command),
        *parts,
        *(each for each in elsewhere if each["@type"] != "File"),
    ]
    return {"@context": [f"{_CRATE}/context", f"{_TERMS}/context"], "@graph": entities}


def _actions(
    run: JobRun,
    command: Mapping[str, Any],
    files: Mapping[str, Any],
    elsewhere: Sequence[Entity],
) -> Iterator[Entity]:
    """One for each calculation; one for a job that came to none."""
    inputs = [{"@id": _id(path)} for path in sorted(files) if path.startswith("inputs/")]
    inputs += [{"@id": each["@id"]} for each in elsewhere if each["@id"] not in _left(elsewhere)]
    common: Entity = {"@type": "CreateAction", "instrument": {"@id": "#program"}}
    if inputs:
        common["object"] = _one_or_many(inputs)
    if run.image is not None:
        common["containerImage"] = {"@id": "#image"}
    if command.get("requested_by"):
        common["agent"] = {"@id": "#requester"}
    if not run.calculations:
        words = {"name": f"Job {run.job_id}", "description": "It ended before it was launched."}
        yield {**common, "@id": "#job", **words, **_end(run, run.state)}
    for number, each in enumerate(run.calculations, start=1):
        is_last = number == len(run.calculations)
        results = [path for path in sorted(files) if path.startswith(f"attempts/{number}/")]
        results += [path for path in sorted(files) if path.startswith("outputs/") and is_last]
        left = [{"@id": name} for name in _left(elsewhere)] if is_last else []
        action = {
            **common,
            "@id": f"#attempt-{number}",
            "name": f"Attempt {each.attempt or number} of job {run.job_id}",
            "identifier": f"urn:uuid:{each.uuid}",
            "description": _where(each),
            **_end(run, run.state if is_last else "failed", each),
        }
        if results or left:
            action["result"] = _one_or_many([*({"@id": _id(path)} for path in results), *left])
        if each.started and each.ended:
            action["startTime"] = _second(each.started)
            action["endTime"] = _second(each.ended)
        yield action


def _end(run: JobRun, state: str, each: Calculation | None = None) -> Entity:
    end: Entity = {"actionStatus": _STATUS[state]}
    if each is None or each.ended is None:
        end["endTime"] = _second(run.ended_at)
    if state != "succeeded":
        message = each.exit_message if each else None
        end["error"] = message or (run.error.message if run.error else state)
    return end


def _around(run: JobRun, command: Mapping[str, Any]) -> Iterator[Entity]:
    """Who asked for it, the program, and its image."""
    workload = command.get("workload", {})
    argv = workload.get("argv", [])
    program = {
        "@id": "#program",
        "@type": "SoftwareApplication",
        "name": argv[0] if argv else workload.get("entry_point", run.process_type or "program"),
        "description": shlex.join(argv) if argv else "an AiiDA work chain",
    }
    if run.image is not None:
        repository = run.image.reference.partition("@")[0]
        url = f"docker://{repository}"
        yield {**program, "version": run.image.digest, "url": url}
        yield _image(run.image.reference, run.image.digest)
    else:
        version = ", ".join(f"{name} {each}" for name, each in run.versions.items())
        yield {**program, "version": version or "not told", "url": "https://www.aiida.net"}
    if command.get("requested_by"):
        name = command["requested_by"]["user_id"]
        yield {"@id": "#requester", "@type": "Person", "name": name}


def _image(reference: str, digest: str) -> Entity:
    named, _, _ = reference.partition("@")
    name, _, tag = named.rpartition(":") if ":" in named.rpartition("/")[2] else (named, "", "")
    registry, _, rest = name.partition("/")
    if not rest or not (set(registry) & {".", ":"} or registry == "localhost"):
        registry, rest = "docker.io", name
    image = {
        "@id": "#image",
        "@type": "ContainerImage",
        "additionalType": {"@id": f"{_TERMS}#DockerImage"},
        "registry": registry,
        "name": rest,
        "sha256": digest.removeprefix("sha256:"),
    }
    return {**image, "tag": tag} if tag else image


def _file(path: str, facts: Mapping[str, Any]) -> Entity:
    place, _, name = path.partition("/")
    kind, _ = mimetypes.guess_type(path)
    plain = place == "attempts" and not path.endswith(".json")
    return {
        "@id": _id(path),
        "@type": "File",
        "name": name or path,
        "description": _PLACES.get(place) or _PLACES["attempts"],
        "encodingFormat": "text/plain" if plain else kind or "application/octet-stream",
        "contentSize": str(facts["size"]),
        "sha256": facts["sha256"],
    }


def _elsewhere(run: JobRun, files: Mapping[str, Any]) -> Iterator[Entity]:
    """What is not in the crate: files of the web by their URL, files of the cluster by their name and hash."""
    for each in run.inputs:
        if f"inputs/{each.name}" in files:
            continue
        known = {"name": each.name, **({"sha256": each.sha256} if each.sha256 else {})}
        if each.origin == "url":
            words = {"description": "What the node fetched as an input.", **known}
            yield {"@id": each.source, "@type": "File", **words}
        else:
            yield {"@id": f"#input/{quote(each.name)}", "@type": "PropertyValue", **known,
                   "value": each.source or each.origin}  # fmt: skip
    for output in run.calculations[-1].outputs if run.calculations else ():
        if f"outputs/{output.name}" not in files:
            yield {
                "@id": f"#output/{quote(output.name)}",
                "@type": "PropertyValue",
                "name": output.name,
                "value": f"{output.size} bytes, kept on the cluster",
                "sha256": output.sha256,
            }


def _left(elsewhere: Sequence[Entity]) -> list[str]:
    return [each["@id"] for each in elsewhere if each["@id"].startswith("#output/")]


def _where(each: Calculation) -> str:
    slurm = each.scheduler
    if slurm is None:
        return "It did not come to Slurm."
    place = f" on {slurm.node_list}" if slurm.node_list else ""
    return f"Slurm job {slurm.job_id} ({slurm.name}){place}, cluster {slurm.cluster}."


def _one_or_many(entities: Iterable[Entity]) -> Entity | list[Entity]:
    """JSON-LD as RO-Crate recommends it: no array of one."""
    found = list(entities)
    return found[0] if len(found) == 1 else found


def _second(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds")


def _id(path: str) -> str:
    return quote(path)
