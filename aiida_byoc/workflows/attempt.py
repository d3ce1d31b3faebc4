"""One attempt of a job in AiiDA's words: command and placement become the inputs of a `ContainerJob`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida.orm import Data, Dict, load_code

from aiida_byoc.commands.policy import Placement
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.runtimes import RUNTIMES, Container
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.workflows.inputs import input_nodes, what_is_put
from aiida_byoc.workflows.resources import scheduler_options

__all__ = ["attempt_inputs"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""For images whose configuration sets none."""


def attempt_inputs(
    command: SubmitJobCommand,
    placement: Placement,
    *,
    submission_id: str,
    number: int,
    rootfs: str,
    image_env: Mapping[str, str],
    earlier: Mapping[str, Data],
    fetched: FetchedFiles,
    code: str,
) -> dict[str, Any]:
    """The inputs of attempt `number` (from 1).

    Args:
        rootfs: the unpacked image.
        image_env: what the image's own configuration sets.
        earlier: nodes of earlier jobs that hold inputs, by the key of the input.
        fetched: files that the node has fetched.
        code: label of the code that runs the in-job program.
    """
    inputs = what_is_put(command, earlier, paths=placement.data.paths, fetched=fetched)
    name = f"byoc-{submission_id}-{number}"
    return {
        "code": load_code(code),
        "container": Dict(_container(command, placement, inputs, rootfs, image_env)),
        "submission_id": submission_id,
        "attempt": number,
        "job_name": name,
        "metadata": {
            "options": {
                **scheduler_options(command.resource_shape, placement, name=name),
                "import_sys_environment": False,
                "withmpi": False,
            }
        },
        **input_nodes(command.container, earlier),
    }


def _container(
    command: SubmitJobCommand,
    placement: Placement,
    inputs: Sequence[Mapping[str, Any]],
    rootfs: str,
    image_env: Mapping[str, str],
) -> dict[str, Any]:
    """What the in-job program is told."""
    workload, shape = command.container, command.resource_shape
    container = Container(
        rootfs=rootfs,
        memory_mib=shape.memory_mib,
        processes=placement.processes,
        network=workload.network == "host",
        gpus=shape.gpus or 0,
        scratch=shape.scratch_mib is not None,
        inputs=[(each["place"], each["name"]) for each in inputs],
    )
    env = {"PATH": _PATH, **image_env, "HOME": "/work", **workload.env}
    return {
        "runtime": RUNTIMES[placement.runtime].launch(container).to_json(),
        "rootfs": rootfs,
        "processes": container.processes,
        "gpus": container.gpus,
        "scratch": {"mib": shape.scratch_mib, "place": placement.scratch}
        if shape.scratch_mib
        else None,
        "argv": workload.argv,
        "env": env,
        "inputs": [dict(each) for each in inputs],
        "outputs": [each.model_dump() for each in workload.outputs],
        "image": workload.image,
        "image_digest": placement.image_digest,
        "caps": placement.data.model_dump(mode="json"),
    }
