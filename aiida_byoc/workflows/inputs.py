"""Inputs of a job: as AiiDA's nodes, so that provenance shows their origin, and as the in-job program is told."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida.common import NotExistent
from aiida.orm import Data, Dict, ProcessNode, RemoteData, SinglefileData, load_node

from aiida_byoc.commands.inputs import Earlier
from aiida_byoc.contracts.commands import (
    CONTAINED,
    ArrayWorkload,
    JobInput,
    PathInput,
    SubmitJobCommand,
    TextInput,
    UrlInput,
)
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.runtimes.in_job import INPUTS, WORK

__all__ = ["InputUnavailable", "earlier_outputs", "input_nodes", "what_is_put"]


class InputUnavailable(Exception):
    """A job cannot have one of its inputs; the message is for its owner."""


def _key(index: int) -> str:
    return f"input_{index:03d}"


def earlier_outputs(command: Mapping[str, Any], jobs: Sequence[Earlier]) -> dict[str, Data]:
    """The nodes that hold what the job reads of earlier ones, by its inputs.

    Args:
        command: as the ledger keeps it.
        jobs: those that it depends on.

    Raises:
        InputUnavailable: an earlier job did not succeed, or left no such file.
    """
    for job in jobs:
        if job.state != ExecutionState.SUCCEEDED:
            raise InputUnavailable(
                f"the job {job.job_id}, whose output it reads, ended as {job.state}"
            )
    by_name = {job.job_id: job for job in jobs}
    files = enumerate(command["workload"].get("inputs", [])) if jobs else ()
    read = {_key(index): file["job"] for index, file in files if "job" in file}
    return {key: _output(by_name[job["job_id"]], job["output"]) for key, job in read.items()}


def _output(job: Earlier, name: str) -> Data:
    try:
        chain = load_node(job.process_pk)
        for output in chain.outputs.record.get_dict()["outputs"]:
            if output["name"] == name:
                is_remote = output.get("location") == "remote"
                found: Data = chain.outputs["remote_outputs" if is_remote else "outputs"]
                return found
    except (NotExistent, KeyError) as error:
        raise InputUnavailable(
            f"the outputs of the job {job.job_id} are not on the node any more"
        ) from error
    raise InputUnavailable(f"the job {job.job_id} left no output {name}")


def input_nodes(workload: CONTAINED, given: Mapping[str, Data]) -> dict[str, Any]:
    """What AiiDA hands over itself: texts, and outputs of earlier jobs."""
    texts = {
        _key(index): file
        for index, file in enumerate(workload.inputs)
        if isinstance(file, TextInput)
    }
    nodes: dict[str, Any] = {"given": dict(given)} if given else {}
    if texts:
        nodes["nodes"] = {
            key: SinglefileData(io.BytesIO(file.text.encode()), filename=Path(file.name).name)
            for key, file in texts.items()
        }
        # The tasks of an array share them, where they are mounted from.
        shared = isinstance(workload, ArrayWorkload)
        nodes["filenames"] = Dict(
            {
                key: f"{INPUTS}/{key[-3:]}" if shared else f"{WORK}/{file.name}"
                for key, file in texts.items()
            }
        )
    return nodes


def what_is_put(
    command: SubmitJobCommand,
    given: Mapping[str, Data],
    *,
    paths: Sequence[str],
    fetched: FetchedFiles,
) -> list[dict[str, Any]]:
    """What the in-job program is told of each input that is no text; of an array, of every input.

    Members: `name` (below /work); `place` (in the job's directory, from which it is mounted); `node` and `output` (of
    which AiiDA puts a copy there), or else `source` (an absolute path on the cluster), `within` (directories out of
    which no link may lead), `size`, `sha256` (to be verified).
    """
    told = []
    for index, file in enumerate(command.container.inputs):
        facts: dict[str, Any] = {}
        if isinstance(file, JobInput):
            facts = _of_node(_key(index), given[_key(index)], file.job.output)
        elif isinstance(file, PathInput):
            facts = {"source": file.path, "within": list(paths), "sha256": file.sha256}
        elif isinstance(file, UrlInput):
            facts = {"source": str(fetched.path(command.tenant_id, file.sha256))}
        elif not isinstance(command.workload, ArrayWorkload):
            continue
        told.append({"name": file.name, "place": f"{INPUTS}/{index:03d}", **facts})
    return told


def _of_node(key: str, node: Data, output: str) -> dict[str, Any]:
    if not isinstance(node, RemoteData):
        return {"node": key, "output": output}
    creator: ProcessNode = node.creator
    (record,) = [
        each for each in creator.outputs.record.get_dict()["outputs"] if each["name"] == output
    ]
    return {"source": f"{node.get_remote_path()}/{output}", "size": record["size"]}
