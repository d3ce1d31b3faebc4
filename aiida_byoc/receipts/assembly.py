"""From facts to the statement: pure, so the same facts are the same receipt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.canonical import canonical_json
from aiida_byoc.contracts.events import one_line
from aiida_byoc.contracts.receipt.statement import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Statement,
    job_subject,
)
from aiida_byoc.receipts.facts import Facts, Linked, Row, repository_files
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.ending import ending

__all__ = ["statement"]

_OURS = re.compile(r"^aiida\.(?:calculations|workflows):byoc\.")
_SHOWN_NODES = re.compile(r"(?:^|\s)NodeList=(\S+)")
_ACCOUNTED_NODES = re.compile(r"^[A-Z_]+[^|\n]*\|\d+:\d+\|([^|\s]+)", re.MULTILINE)
_SHOWN = re.compile(r"(?:^|\s)JobState=")
_NOBODY = {"(null)", "None"}
_NOTHING = Linked(0, {}, {})


def statement(facts: Facts) -> Statement:
    """What the receipt of that job says."""
    job, told = facts.job, facts.job["told"]
    chain = facts.chain or {"attributes": {}}
    placement = _given(facts, "placement")
    calculations = [_calculation(facts, row) for row in facts.calculations]
    subject = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in _files(facts, calculations).items()
    ]
    run = {
        **{name: job[name] for name in ("node_id", "tenant_id", "workspace_id", "job_id")},
        **{name: job[name] for name in ("submission_id", "trace_id", "state", "fingerprint")},
        "epoch": told.get("epoch"),
        "error": told.get("error"),
        "accepted_at": utc_now_text(job["accepted_at"]),
        "ended_at": told["occurred_at"],
        "execution_id": chain.get("uuid"),
        "process_type": chain.get("process_type"),
        "exit_status": chain["attributes"].get("exit_status"),
        "versions": _versions(chain),
        "image": told.get("image"),
        "runtime": placement.get("runtime"),
        "inputs": list(_inputs(facts)),
        "calculations": calculations,
    }
    return Statement.model_validate(
        {
            "_type": STATEMENT_TYPE,
            "subject": subject or [job_subject(job["submission_id"], job["fingerprint"])],
            "predicateType": PREDICATE_TYPE,
            "predicate": run,
        }
    )


def _files(facts: Facts, calculations: list[dict[str, Any]]) -> dict[str, str]:
    """What the job left: what its last attempt did; what an approved work chain returned."""
    if calculations and calculations[-1]["attempt"] is not None:
        return {each["name"]: each["sha256"] for each in calculations[-1]["outputs"]}
    result = facts.job["told"].get("result") or {}
    return {each["name"]: each["sha256"] for each in result.get("outputs", [])}


def _calculation(facts: Facts, row: Row) -> dict[str, Any]:
    attributes, files = row["attributes"], dict(repository_files(row["files"]))
    left = facts.outputs.get(row["pk"], {})
    is_ours = _OURS.match(row["process_type"] or "")
    record = left.get("record", _NOTHING).content if is_ours else {}
    retrieved = left.get("retrieved", _NOTHING).files
    program = {name: key for name, key in files.items() if name.startswith(f"{in_job.PROGRAM}/")}
    script = attributes.get("submit_script_filename", "_aiidasubmit.sh")
    message = attributes.get("exit_message")
    return {
        "uuid": row["uuid"],
        "process_type": row["process_type"],
        "attempt": row["attempt"],
        "exit_status": attributes.get("exit_status"),
        "exit_message": one_line(message) if message else None,
        "versions": _versions(row),
        "script": files.get(script),
        "specification": files.get(in_job.SPECIFICATION),
        "program": _together(program) if program else None,
        "record": retrieved.get(in_job.RECORD),
        "image_digest": record.get("image_digest"),
        "container_exit_code": record.get("exit_code"),
        "scheduler": _slurm(row, record),
        "started": _instant(record.get("started_at")),
        "ended": _instant(record.get("ended_at")),
        "usage": record.get("usage"),
        "node_seconds": facts.node_seconds.get(row["attempt"] or 0),
        "stdout": retrieved.get("stdout"),
        "stderr": retrieved.get("stderr"),
        "outputs": list(_outputs(left, record)),
    }


def _outputs(left: Mapping[str, Linked], record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was kept, each by the hash under which AiiDA keeps it; what lies on the cluster, by the record's."""
    kept = left.get("outputs", _NOTHING).files
    for each in record.get("outputs", []):
        facts = {"name": each["name"], "size": each["size"]}
        if each.get("location") == "remote":
            if "remote_outputs" in left:
                yield {**facts, "sha256": each["sha256"], "location": "remote"}
        elif each["name"] in kept:
            yield {**facts, "sha256": kept[each["name"]], "location": "repository"}


def _slurm(row: Row, record: Mapping[str, Any]) -> dict[str, Any] | None:
    attributes = row["attributes"]
    job = attributes.get("job_id") or record.get("scheduler_job_id")
    if job is None:
        return None
    slurm_job, _, name = job.partition("/")  # as `byoc.slurm` has AiiDA keep it
    said = str((attributes.get("detailed_job_info") or {}).get("stdout", ""))
    seen, is_shown = ending(said), _SHOWN.search(said) is not None
    nodes = (_SHOWN_NODES if is_shown else _ACCOUNTED_NODES).search(said)
    facts: dict[str, Any] = {
        "cluster": record.get("scheduler_cluster") or row["computer"],
        "job_id": slurm_job,
        "name": record.get("scheduler_job_name") or name or None,
        "partition": attributes.get("queue_name"),
        "node_list": nodes[1] if nodes and nodes[1] not in _NOBODY else None,
    }
    facts["node_list"] = record.get("scheduler_nodes") or facts["node_list"]
    if seen.state is not None:
        facts |= {
            "said_by": "scontrol" if is_shown else "sacct",
            "state": seen.state,
            "exit_code": seen.exit,
            "signal": seen.signal,
            "reason": seen.reason if seen.reason not in {"", "None"} else None,
            "restarts": seen.restarts if is_shown else None,
        }
    return facts


def _inputs(facts: Facts) -> Iterator[dict[str, Any]]:
    """The inputs of every attempt: the command names them, provenance has their content."""
    beside = facts.inputs.get(facts.calculations[-1]["pk"], {}) if facts.calculations else {}
    workload = _given(facts, "command").get("workload", {})
    files = workload.get("inputs", []) if workload.get("kind") == "container" else []
    for index, file in enumerate(files):
        if "text" in file:
            kept = beside.get(f"nodes__input_{index:03d}", _NOTHING).files
            digest = next(iter(kept.values()), None) or _sha256(file["text"].encode())
            yield {"name": file["name"], "origin": "text", "sha256": digest}
        elif "job" in file:
            output = file["job"]["output"]
            node = beside.get(f"given__input_{index:03d}", _NOTHING)
            yield {
                "name": file["name"],
                "origin": "job",
                "source": f"{file['job']['job_id']}/{output}",
                "sha256": node.files.get(output) or _recorded(facts, node.pk, output),
            }
        else:
            origin = "url" if "url" in file else "path"
            facts_of = {"source": file[origin], "sha256": file.get("sha256")}
            yield {"name": file["name"], "origin": origin, **facts_of}


def _given(facts: Facts, name: str) -> Mapping[str, Any]:
    """Command or placement: from provenance, or of a job that was never launched from the ledger."""
    beside_chain = facts.inputs.get((facts.chain or {}).get("pk", 0), {})
    return beside_chain.get(name, _NOTHING).content or facts.job[name] or {}


def _recorded(facts: Facts, pk: int, output: str) -> str | None:
    """The hash of a file that stayed on the cluster, as the job recorded that made it."""
    made = facts.recorded.get(pk, [])
    return next((each["sha256"] for each in made if each["name"] == output), None)


def _versions(process: Row) -> dict[str, str]:
    """What ran it, as AiiDA noted it then."""
    noted = process["attributes"].get("version") or {}
    plugin = "aiida-byoc" if _OURS.match(process.get("process_type") or "") else "plugin"
    names = {"core": "aiida-core", "plugin": plugin}
    return {names[part]: str(noted[part]) for part in names if noted.get(part)}


def _together(files: Mapping[str, str]) -> str:
    """One hash for a directory: of the canonical JSON of its files' hashes by path."""
    return _sha256(canonical_json(dict(files)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _instant(seconds: float | None) -> str | None:
    return None if seconds is None else utc_now_text(datetime.fromtimestamp(seconds, UTC))
