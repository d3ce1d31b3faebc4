"""One attempt of a job in AiiDA's words: command and placement become the inputs of a `ContainerJob`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida.orm import Dict, SinglefileData, load_code

from aiida_byoc.commands.policy import Placement
from aiida_byoc.contracts.commands import InputFile, SubmitJobCommand
from aiida_byoc.runtimes import RUNTIMES, Container
from aiida_byoc.runtimes.in_job import PROGRESS, WORK
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
    code: str,
) -> dict[str, Any]:
    """The inputs of attempt `number` (from 1).

    Args:
        rootfs: the unpacked image.
        image_env: what the image's own configuration sets.
        code: label of the code that runs the in-job program.
    """
    workload = command.container
    name = f"byoc-{submission_id}-{number}"
    return {
        "code": load_code(code),
        "container": Dict(_container(command, placement, rootfs, image_env)),
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
        **_input_files(workload.inputs),
    }


def _container(
    command: SubmitJobCommand, placement: Placement, rootfs: str, image_env: Mapping[str, str]
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
    )
    env = {"PATH": _PATH, **image_env, "HOME": "/work", **workload.env}
    env["BYOC_PROGRESS"] = f"/work/{PROGRESS}"
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
        "outputs": [each.model_dump() for each in workload.outputs],
        "image": workload.image,
        "image_digest": placement.image_digest,
        "caps": placement.data.model_dump(mode="json"),
        "progress_seconds": placement.progress_seconds,
    }


def _input_files(inputs: Sequence[InputFile]) -> dict[str, Any]:
    if not inputs:
        return {}
    files = {f"input_{index:03d}": file for index, file in enumerate(inputs)}
    return {
        "nodes": {
            key: SinglefileData(io.BytesIO(file.text.encode()), filename=Path(file.name).name)
            for key, file in files.items()
        },
        "filenames": Dict({key: f"{WORK}/{file.name}" for key, file in files.items()}),
    }
