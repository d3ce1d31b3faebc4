"""`byoc.container`: one attempt of a job, one container in one Slurm job.

aiida-shell's `ShellJob` carries what is alike: input files from nodes, output streams, the exit-code bands. It does not
carry its argument templates (an argument `{}` would break), its rule that text on stderr is a failure, and its callable
parsers (code in the database); here the client's strings travel in a JSON file that no shell reads.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo, CalcJobState
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida.orm import Dict, FolderData, Node, RemoteData, SinglefileData
from aiida_shell.calculations.shell import ShellJob
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.arrays.staging import write_tasks
from aiida_byoc.arrays.table import FILENAME, opened
from aiida_byoc.calculations.waiting import PROGRESS_SECONDS, ChangeOnlyWaiting
from aiida_byoc.events.hooks import EmitsExecutionEvents
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job import packed
from aiida_byoc.schedulers.ends import ENDS

__all__ = ["ContainerJob"]

_PIECE = 1 << 20
_NO_OPTIONS = (
    "additional_retrieve",
    "additional_retrieve_list",
    "append_text",
    "environment_variables",
    "environment_variables_double_quotes",
    "filename_stdin",
    "mpirun_extra_params",
    "prepend_text",
)
"""AiiDA's options that put text into the script, or fetch files from anywhere: nobody needs them here."""


class ContainerJob(EmitsExecutionEvents, ShellJob):
    """Run one container through Slurm and keep what it declared."""

    DEFAULT_RETRIEVED_TEMPORARY = ()

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        super().define(spec)
        spec.input(
            "container",
            valid_type=Dict,
            help="What runs: `argv`, `env`, `inputs`, `outputs` (as promised), `image`, `image_digest`; in what: "
            "`runtime` (how it is started), `rootfs`, `processes` (at most), `caps` (limits of its data); "
            "`signal`: what the program hears before its time is over; `array`: how its tasks are dealt out.",
        )
        spec.input(
            "tasks",
            valid_type=SinglefileData,
            required=False,
            help="The table of an array's tasks: those run that have not succeeded and are wanted.",
        )
        spec.input_namespace(
            "earlier",
            valid_type=RemoteData,
            required=False,
            dynamic=True,
            help="Directories of earlier attempts: the program goes on with the files of the newest that began.",
        )
        spec.input(
            "submission_id", valid_type=str, non_db=True, help="The job in the node's ledger."
        )
        spec.input("attempt", valid_type=int, non_db=True, help="1 for the first.")
        spec.input(
            "job_name", valid_type=str, non_db=True, help="Slurm job name, unique to the attempt."
        )
        spec.input_namespace(
            "given",
            valid_type=(FolderData, RemoteData),
            dynamic=True,
            required=False,
            help="What earlier jobs left and this one reads, by its inputs.",
        )
        spec.inputs["metadata"]["options"]["parser_name"].default = "byoc.container"
        spec.input(
            "metadata.options.recovery",
            valid_type=dict,
            required=False,
            help="Why there is this attempt, in the words of the contract.",
        )
        for name in ("arguments", "outputs", "parser"):
            del spec.inputs[name]
        for name in _NO_OPTIONS:
            del spec.inputs["metadata"]["options"][name]
        spec.output(
            "record", valid_type=Dict, required=False, help="The completion record of the job."
        )
        spec.output(
            "tasks",
            valid_type=SinglefileData,
            required=False,
            help="The table of an array's tasks, and what became of each (SQLite).",
        )
        spec.output("outputs", valid_type=FolderData, required=False, help="The declared outputs.")
        spec.output(
            "remote_outputs",
            valid_type=RemoteData,
            required=False,
            help="Where those outputs are that were too large to be taken into the repository.",
        )
        for end in ENDS.values():
            spec.exit_code(end.status, end.label, message=end.message, invalidates_cache=True)

    @classmethod
    def get_state_classes(cls) -> dict[Hashable, Any]:
        return {**super().get_state_classes(), ProcessState.WAITING: ChangeOnlyWaiting}

    def close(self) -> None:
        super().close()
        # First where it was created: AiiDA sends its task next.
        crashpoints.reached("child.stored")

    def parse_scheduler_output(self, retrieved: Node) -> None:
        """Leave Slurm's word to the parser, which has the job's own as well."""

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        super().load_instance_state(saved_state, load_context)
        # AiiDA notes on the node that the upload is done, but keeps its output in memory until the next state: a
        # worker that dies in between loses it (measured: 4 of 6 jobs when Postgres crashed).
        uploaded = self.node.get_state() not in {None, CalcJobState.UPLOADING}
        if uploaded and "remote_folder" not in self.outputs:
            linked = self.node.base.links.get_outgoing(link_label_filter="remote_folder").first()
            place = {"computer": self.node.computer, "remote_path": self.node.get_remote_workdir()}
            self.out("remote_folder", linked.node if linked else RemoteData(**place))

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Stage the inputs below `work/`, the specification and the program that reads it."""
        info = super().prepare_for_submission(folder)
        container = self.inputs["container"].get_dict()
        specification = {
            "submission_id": self.submission_id,
            "attempt": self.inputs["attempt"],
            "earlier": [
                directory.get_remote_path()
                for _, directory in sorted(self.inputs.get("earlier", {}).items(), reverse=True)
            ],
            "job_name": self.inputs["job_name"],
            "news": in_job.NEWS,
            "progress_seconds": PROGRESS_SECONDS,  # for attempts that an older version made
            **{name: container[name] for name in container if name != "image"},
        }
        with folder.open(in_job.SPECIFICATION, "w", encoding="utf-8") as file:
            json.dump(specification, file)
        for each in container["inputs"]:
            if "node" in each:
                self._put(self.inputs["given"][each["node"]], each["output"], folder, each["place"])
                info.provenance_exclude_list.append(each["place"])
        program = folder.get_subfolder(in_job.PROGRAM, create=True)
        for module in Path(in_job.__file__).parent.glob("*.py"):
            program.insert_path(str(module), module.name)
        info.codes_info[0].cmdline_params = [*in_job.START]
        info.append_text = None  # `byoc.slurm` ends the script with the program itself
        info.retrieve_list = [in_job.RECORD, self.FILENAME_STDOUT, self.FILENAME_STDERR]
        info.retrieve_temporary_list = [in_job.OUTPUTS]
        if "array" in container:
            self._prepare_array(folder, info, container["array"])
        return info

    def _prepare_array(self, folder: Folder, info: CalcInfo, array: dict[str, Any]) -> None:
        """Stage the tasks; fetch what each element wrote of them. There are no streams in common."""
        directory = folder.get_subfolder(in_job.ARRAY, create=True)
        with (
            tempfile.TemporaryDirectory() as place,
            directory.open(Path(in_job.ARRAY_TASKS).name, "wb") as tasks,
            directory.open(Path(in_job.ARRAY_STARTS).name, "wb") as starts,
        ):
            path = Path(place, FILENAME)
            path.write_bytes(self.inputs["tasks"].get_content(mode="rb"))
            with opened(path) as table:
                write_tasks(table.to_run(), array["pack"], tasks, starts)
        with directory.open(Path(in_job.ARRAY_COUNT).name, "w", encoding="ascii") as file:
            file.write(f"{array['elements']}\n")
        info.provenance_exclude_list += [in_job.ARRAY_TASKS, in_job.ARRAY_STARTS]
        info.codes_info[0].cmdline_params = [*packed.START]
        info.codes_info[0].stdout_name = info.codes_info[0].stderr_name = None
        info.retrieve_list = []
        info.retrieve_temporary_list = [
            (in_job.GATHERED, ".", 1),
            (f"{in_job.CANCELLED}*", ".", 1),  # a pattern: mostly there is none
        ]

    @staticmethod
    def _put(node: FolderData, name: str, folder: Folder, place: str) -> None:
        """Copy one file of a node into the job's directory, in pieces."""
        target = Path(folder.get_abs_path(place))
        target.parent.mkdir(exist_ok=True)
        with node.base.repository.open(name, "rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _PIECE)
