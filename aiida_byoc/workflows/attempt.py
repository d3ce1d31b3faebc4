"""One attempt of a job in AiiDA's words: command and placement become the inputs of a `ContainerJob`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida.orm import CalcJobNode, Data, Dict, RemoteData, load_code

from aiida_byoc.arrays.cancelled import Ranges
from aiida_byoc.arrays.rules import Arrays, Plan, plan
from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts.array import ArrayWorkload, parts
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.runtimes import OVERHEAD_MIB, RUNTIMES, Container
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.runtimes.in_job import PROGRESS
from aiida_byoc.schedulers.ending import ending
from aiida_byoc.workflows.inputs import input_nodes, what_is_put
from aiida_byoc.workflows.outcome import CODES
from aiida_byoc.workflows.recovery import Ask, Ended
from aiida_byoc.workflows.resources import scheduler_options
from aiida_byoc.workflows.tasks import Tasks, tasks_of

__all__ = ["attempt_inputs", "attempt_label", "left"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""For images whose configuration sets none."""


def attempt_label(number: int) -> str:
    """The link label of an attempt, as `BaseRestartWorkChain` gives it."""
    return f"iteration_{number:02d}"


def left(attempt: CalcJobNode) -> Ended:
    """What an attempt left in provenance that decides about the next one."""
    seen = ending(str((attempt.get_detailed_job_info() or {}).get("stdout", "")))
    return Ended(
        code=CODES.get(attempt.exit_status or 0, "execution_failed"),
        message=attempt.exit_message or "the attempt broke off",
        nodes=seen.nodes,
        usable=seen.usable,
    )


def attempt_inputs(
    command: SubmitJobCommand,
    placement: Placement,
    ask: Ask,
    tried: Sequence[CalcJobNode],
    *,
    submission_id: str,
    rootfs: str,
    image_env: Mapping[str, str],
    given: Mapping[str, Data],
    fetched: FetchedFiles,
    code: str,
    cancelled: Ranges = (),
) -> dict[str, Any]:
    """The inputs of an attempt.

    Args:
        tried: the attempts before it.
        rootfs: the unpacked image.
        image_env: what the image's own configuration sets.
        given: nodes of earlier jobs that hold inputs, by the key of the input.
        fetched: files that the node has fetched.
        code: label of the code that runs the in-job program.
        cancelled: tasks of an array that are not wanted any more.
    """
    inputs = what_is_put(command, given, paths=placement.data.paths, fetched=fetched)
    name = f"byoc-{submission_id}-{ask.number}"
    workload = command.workload
    tasks = None
    if isinstance(workload, ArrayWorkload):
        named = workload.tasks.file
        table = fetched.path(command.tenant_id, named.sha256) if named else None
        tasks = tasks_of(workload, tried, table, cancelled)
    dealt = _dealt(command, placement, tasks) if tasks else None
    return {
        "code": load_code(code),
        "container": Dict(
            {
                **_container(
                    command, placement, ask, inputs=inputs, rootfs=rootfs, image_env=image_env
                ),
                **(_array(command, tasks, dealt) if tasks and dealt else {}),
            }
        ),
        "submission_id": submission_id,
        "attempt": ask.number,
        "job_name": name,
        "metadata": {"options": _options(command, placement, ask, name, dealt)},
        "earlier": _directories(ask, tried),
        **input_nodes(command.container, given),
        **({"tasks": tasks.table} if tasks else {}),
    }


def _dealt(command: SubmitJobCommand, placement: Placement, tasks: Tasks) -> Plan:
    if not isinstance(command.workload, ArrayWorkload):
        raise TypeError(f"the workload is a {command.workload.kind}")
    rules = placement.arrays or Arrays()
    return plan(
        max(1, tasks.to_run),
        command.workload,
        command.resource_shape,
        rules,
        measured=tasks.seconds,
    )


def _array(command: SubmitJobCommand, tasks: Tasks, dealt: Plan) -> dict[str, Any]:
    """What the elements of an array are told beside what every job is; each task has an environment of its own."""
    workload = command.workload
    if not isinstance(workload, ArrayWorkload):
        raise TypeError(f"the workload is a {workload.kind}")
    names = workload.tasks.parameters
    return {
        "array": {
            "elements": dealt.elements,
            "pack": dealt.pack,
            "workers": dealt.workers,
            "total": tasks.total,
            "succeeded": tasks.total - tasks.to_run - tasks.cancelled,
            "cancelled": tasks.cancelled,
            "argv": [parts(each, names) for each in workload.argv],
            "env": {name: parts(each, names) for name, each in workload.env.items()},
        }
    }


def _container(
    command: SubmitJobCommand,
    placement: Placement,
    ask: Ask,
    *,
    inputs: Sequence[Mapping[str, Any]],
    rootfs: str,
    image_env: Mapping[str, str],
) -> dict[str, Any]:
    """What the in-job program is told."""
    workload, shape = command.container, command.resource_shape
    tasks = shape.nodes * shape.tasks_per_node
    container = Container(
        rootfs=rootfs,
        memory_mib=ask.memory_mib,
        processes=placement.processes,
        network=workload.network == "host",
        gpus=shape.gpus or 0,
        scratch=shape.scratch_mib is not None,
        inputs=[(each["place"], each["name"]) for each in inputs],
        is_task=tasks > 1,
        shares_memory=shape.tasks_per_node > 1,
    )
    env = {"PATH": _PATH, **image_env, "HOME": "/work"}
    if not isinstance(workload, ArrayWorkload):
        env |= {**workload.env, "BYOC_PROGRESS": f"/work/{PROGRESS}"}
    env["BYOC_ATTEMPT"] = str(ask.number)
    return {
        "runtime": RUNTIMES[placement.runtime].launch(container).to_json(),
        "rootfs": rootfs,
        "processes": container.processes,
        "gpus": container.gpus,
        "tasks": {
            "count": tasks,
            "per_node": shape.tasks_per_node,
            "cpus": shape.cpu // shape.tasks_per_node,
        }
        if tasks > 1
        else None,
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
        "progress_seconds": placement.progress_seconds,
        **({"signal": workload.checkpoint.signal} if workload.checkpoint else {}),
    }


def _options(
    command: SubmitJobCommand, placement: Placement, ask: Ask, name: str, dealt: Plan | None
) -> dict[str, Any]:
    """What Slurm is asked for, and why there is this attempt."""
    checkpoint = command.container.checkpoint
    asked = command.resource_shape
    containers = dealt.workers if dealt else asked.tasks_per_node
    overhead = OVERHEAD_MIB.get(placement.runtime, 0) * containers
    shape = asked.model_copy(update={"memory_mib": ask.memory_mib + overhead})
    options = scheduler_options(
        shape,
        placement,
        name=name,
        exclude=ask.exclude,
        warning=(checkpoint.signal, checkpoint.seconds_before) if checkpoint else None,
        array=(dealt.elements, dealt.at_a_time) if dealt else None,
    )
    if dealt:
        options["parser_name"] = "byoc.array"
    options |= {"import_sys_environment": False, "withmpi": False}
    return options | ({"recovery": ask.recovery} if ask.recovery else {})


def _directories(ask: Ask, tried: Sequence[CalcJobNode]) -> dict[str, RemoteData]:
    """Where the attempts were whose files this one goes on with."""
    links = {
        number: tried[number - 1].base.links.get_outgoing(link_label_filter="remote_folder").first()
        for number in ask.goes_on_from
    }
    return {f"attempt_{number:02d}": link.node for number, link in links.items() if link}
