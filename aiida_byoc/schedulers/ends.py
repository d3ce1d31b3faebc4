"""The ends of an attempt by name, and what a completion record may say: the words of the truth table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiida_byoc.schedulers.ending import Ending

__all__ = ["ENDS", "End", "Record"]


class Record(StrEnum):
    """What the completion record says, in the table's words."""

    UNREAD = "not read"
    """By the scheduler plugin, which knows none: calculations of other plugins leave no record."""
    NONE = "none"
    INVALID = "cannot be believed"
    NO_IMAGE = "image not there"
    OTHER_IMAGE = "another image there"
    ALTERED = "outputs altered"
    NO_INPUT = "input not there"
    UNUSABLE = "runtime unusable"
    NOT_STARTED = "program not started"
    FAILED = "exit code not 0"
    TASKS_FAILED = "tasks failed, all ended"
    """Of an array; where one did not end there is no record of the whole."""
    CHANGING = "outputs still written to"
    TOO_MANY = "too many outputs"
    TOO_LARGE = "outputs too large"
    INCOMPLETE = "outputs missing"
    CHECKPOINTED = "not success, after the checkpoint signal"
    SIGNALLED = "ended by SIGTERM or SIGKILL, unheard by the job"
    """By itself, or by Slurm, which signals the program before the job's own process."""
    STOPPED = "not success, after SIGTERM"
    TOLD_TO_END = "exit code 0, outputs there, after a signal"
    """A program may end in order when Slurm is about to kill it, and be far from done."""
    COMPLETE = "exit code 0, outputs there"


@dataclass(frozen=True, slots=True)
class End:
    """One named end of an attempt.

    Attributes:
        status: exit status in AiiDA. The scheduler's are below 200; those up to 140 are AiiDA's own.
        label: its name among the exit codes of `ContainerJob`.
        code: `error.code` (`aiida_byoc.contracts.failures`).
        message: for people; `{slurm}` is Slurm's word, other names in braces come from the record.
    """

    status: int
    label: str
    code: str
    message: str

    def told(self, seen: Ending, **facts: object) -> str:
        """The message of this occurrence."""
        who = f"the user {seen.cancelled_by}" if seen.cancelled_by else "somebody else"
        return self.message.format(slurm=seen, who=f"{who}, not by this node", **facts)


_ENDS = (
    End(110, "ERROR_SCHEDULER_OUT_OF_MEMORY", "oom", "The job ran out of memory ({slurm})."),
    End(120, "ERROR_SCHEDULER_OUT_OF_WALLTIME", "timeout", "The job ran out of time ({slurm})."),
    End(
        132,
        "ERROR_SCHEDULER_REFUSED",
        "scheduler_refused",
        "Slurm cannot run what was asked for ({slurm}).",
    ),
    End(140, "ERROR_SCHEDULER_NODE_FAILURE", "node_fail", "A compute node failed ({slurm})."),
    End(141, "ERROR_SCHEDULER_PREEMPTED", "preempted", "Slurm preempted the job ({slurm})."),
    End(142, "ERROR_SCHEDULER_CANCELLED", "killed", "The job was stopped by {who}."),
    End(
        143,
        "ERROR_SCHEDULER_BOOT_FAILURE",
        "boot_fail",
        "A compute node could not be started for the job ({slurm}).",
    ),
    End(
        144,
        "ERROR_SCHEDULER_DEADLINE",
        "deadline_exceeded",
        "Slurm removed the job, which could not end before its deadline ({slurm}).",
    ),
    End(
        145,
        "ERROR_SCHEDULER_LAUNCH_FAILURE",
        "launch_failed",
        "The job could not be started on its compute node ({slurm}).",
    ),
    End(
        146,
        "ERROR_SCHEDULER_REQUEUED",
        "requeued",
        "The job was stopped and put back into Slurm's queue; what runs again is a new attempt.",
    ),
    End(
        147,
        "ERROR_SCHEDULER_LAUNCH_REFUSED",
        "launch_refused",
        "The compute node did not start the job, and Slurm cancelled it; it never began.",
    ),
    End(
        303,
        "ERROR_OUTPUT_FILEPATHS_MISSING",
        "output_missing",
        "Declared outputs are not there: {names}.",
    ),
    End(
        304,
        "ERROR_NO_COMPLETION_RECORD",
        "lost",
        "The job left no completion record: it was killed, or lost, before its end ({slurm}).",
    ),
    End(
        305,
        "ERROR_COMPLETION_RECORD_INVALID",
        "record_invalid",
        "The completion record cannot be believed: {reason}.",
    ),
    End(
        306,
        "ERROR_OUTPUT_ALTERED",
        "output_altered",
        "Outputs differ from the completion record: {names}.",
    ),
    End(
        307,
        "ERROR_OUTPUT_TOO_LARGE",
        "output_too_large",
        "Outputs are larger than the node's policy allows: {names}.",
    ),
    End(
        308,
        "ERROR_TOO_MANY_OUTPUTS",
        "too_many_outputs",
        "There are {surplus} output files more than the node's policy allows.",
    ),
    End(
        320,
        "ERROR_CONTAINER_NOT_STARTED",
        "container_not_started",
        "The container did not start: {reason}.",
    ),
    End(
        321,
        "ERROR_RUNTIME_UNUSABLE",
        "runtime_unusable",
        "The runtime cannot be used on the compute node: {reason}.",
    ),
    End(
        322,
        "ERROR_IMAGE_MISMATCH",
        "image_mismatch",
        "The compute node has another image than was accepted: {reason}.",
    ),
    End(
        323,
        "ERROR_IMAGE_NOT_THERE",
        "image_missing",
        "The compute node does not have the image: {reason}.",
    ),
    End(
        330,
        "ERROR_INPUT_UNAVAILABLE",
        "input_unavailable",
        "An input cannot be had: {reason}.",
    ),
    End(
        410,
        "ERROR_TASKS_FAILED",
        "tasks_failed",
        "Of {total} tasks {failed} failed and {interrupted} did not end; the first: {first}.",
    ),
    End(
        400,
        "ERROR_COMMAND_FAILED",
        "container_failed",
        "The container exited with status {status}.",
    ),
)

ENDS: dict[str, End] = {end.code: end for end in _ENDS}
