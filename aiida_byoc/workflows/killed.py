"""What an array left that was killed.

AiiDA fetches and parses nothing of a process that is killed, and lets nobody add to it afterwards. So once Slurm has
nothing of the attempt any more its table is kept beside it, as a calculation of its own: from what the attempt began
with to what it left.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

from aiida.common import NotExistent
from aiida.common.links import LinkType
from aiida.orm import (
    CalcFunctionNode,
    CalcJobNode,
    Data,
    Dict,
    ProcessNode,
    SinglefileData,
    load_node,
)
from plumpy import ProcessState

from aiida_byoc.arrays.gathering import gather_command
from aiida_byoc.arrays.summing import summed
from aiida_byoc.arrays.table import FILENAME
from aiida_byoc.events.hooks import transaction
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.options import job_name

__all__ = ["is_killed_array", "keep", "output_of"]

_LABEL = "byoc_tasks_left"
_OURS = "aiida.calculations:byoc.container"


def is_killed_array(attempt: CalcJobNode) -> bool:
    """Whether nobody has kept yet what the tasks of the attempt, which did not reach its own end, left."""
    is_ours = attempt.process_type == _OURS
    return is_ours and "array" in attempt.inputs.container and output_of(attempt, "tasks") is None


def output_of(attempt: CalcJobNode, label: str) -> Any:
    """What an attempt left under that name, be it that it was killed; `None` if there is nothing."""
    try:
        found = _made(attempt, label) or _made(load_node(str(_uuid(attempt))), label)
    except NotExistent:
        return None
    return found.node if found else None


def _made(node: ProcessNode, label: str) -> Any:
    return node.base.links.get_outgoing(link_type=LinkType.CREATE, link_label_filter=label).first()


def keep(attempt: CalcJobNode, *, stopped: bool) -> None:
    """Keep the table of a killed array and its sum, with what its elements left; nothing if none is left to say.

    Args:
        stopped: the job was cancelled: nobody wants what has not ended.

    Raises:
        Exception: whatever the transport raises.
        ValueError: what is there cannot be believed.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, FILENAME)
        _fetch(attempt, Path(place))
        path.write_bytes(attempt.inputs.tasks.get_content(mode="rb"))
        [call] = attempt.base.links.get_incoming(link_type=LinkType.CALL_CALC).all()
        left = summed(
            path,
            Path(place),
            attempt=int(call.link_label.rpartition("_")[2]),
            job_name=job_name(attempt.get_option("custom_scheduler_commands")),
            stopped=stopped,
        )
        if left.record is not None:
            _store(attempt, tasks=SinglefileData(path, FILENAME), record=Dict(left.record))


def _fetch(attempt: CalcJobNode, place: Path) -> None:
    """What its elements left, if it has a directory and any began."""
    directory = attempt.get_remote_workdir()
    if directory is None:
        return
    command = gather_command(directory, attempt.inputs.container["array"]["pack"])
    with attempt.get_authinfo().get_transport() as transport:
        status, _, said = transport.exec_command_wait(command)
        if status:
            raise OSError(f"what the array left cannot be brought together: {said.strip()[:300]}")
        for name in (in_job.GATHERED, in_job.CANCELLED):
            if transport.path_exists(f"{directory}/{name}"):
                transport.getfile(f"{directory}/{name}", str(place / Path(name).name))


def _store(attempt: CalcJobNode, **left: Data) -> None:
    """One calculation for each attempt, whoever tries it again."""
    node = CalcFunctionNode(label=_LABEL, description=f"what the killed {attempt.uuid} left")
    node.backend_entity.bare_model.uuid = _uuid(attempt)
    node.set_process_label(_LABEL)
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(0)
    given = {"tasks": attempt.inputs.tasks}
    if remote := _made(attempt, "remote_folder"):
        given["remote_folder"] = remote.node
    for label, data in given.items():
        node.base.links.add_incoming(data, LinkType.INPUT_CALC, label)
    with transaction(node.backend):
        node.store()
        for label, data in left.items():
            data.base.links.add_incoming(node, LinkType.CREATE, label)
            data.store()
        node.seal()


def _uuid(attempt: CalcJobNode) -> uuid.UUID:
    return uuid.uuid5(uuid.UUID(attempt.uuid), _LABEL)
