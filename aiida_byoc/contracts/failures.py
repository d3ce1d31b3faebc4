"""Why a job can fail, in one catalogue: error codes, whether a new job can help, what to do, what the node mends.

Only this module knows them; the node's truth table (`aiida_byoc.schedulers.failures`), the events and the documents
read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aiida_byoc.contracts.events import one_line

__all__ = ["FAILURES", "Failure", "RetryWord", "job_error"]

RetryWord = Literal["oom", "timeout", "node_fail", "preempted", "tasks_failed"]
"""An end of an attempt, as `retry_policy.on` names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One kind of failure.

    Attributes:
        code: `error.code` in events.
        retryable: whether the same work as a new job can succeed.
        on: the word of `retry_policy.on` that lets the node start another attempt by itself; `requeued` needs none: the
            job was put back into Slurm's queue, or would have been but for `--no-requeue`.
        remedy: one sentence for whoever submitted the job.
    """

    code: str
    retryable: bool
    remedy: str
    on: RetryWord | Literal["requeued"] | None = None


_CATALOGUE = (
    Failure(
        code="container_failed",
        retryable=False,
        remedy="Read the program's output, correct the program or its inputs, and submit a new job.",
    ),
    Failure(
        code="tasks_failed",
        retryable=False,
        on="tasks_failed",
        remedy="Look up which tasks failed, and why; correct them or the program, and submit a new job.",
    ),
    Failure(
        code="container_not_started",
        retryable=False,
        remedy="Let argv begin with a program that is in the image, and executable.",
    ),
    Failure(
        code="runtime_unusable",
        retryable=True,
        remedy="Ask the node's owner to mend the runtime on the compute nodes, then submit a new job.",
    ),
    Failure(
        code="input_unavailable",
        retryable=True,
        remedy="Read which input the message names; correct it, or submit a new job once it is there.",
    ),
    Failure(
        code="output_missing",
        retryable=False,
        remedy="Declare only files that the program leaves below its working directory.",
    ),
    Failure(
        code="output_altered",
        retryable=True,
        remedy="Submit a new job; if it recurs, ask the node's owner about the cluster's file system.",
    ),
    Failure(
        code="output_too_large",
        retryable=False,
        remedy="Leave smaller outputs, or ask the node's owner for more room.",
    ),
    Failure(
        code="too_many_outputs",
        retryable=False,
        remedy="Let the patterns mean fewer files, or pack them into one.",
    ),
    Failure(
        code="record_invalid",
        retryable=True,
        remedy="Submit a new job; if it recurs, ask the node's owner about the cluster's file system.",
    ),
    Failure(
        code="lost",
        retryable=True,
        remedy="Submit a new job; if it recurs, ask the node's owner, who finds the cause in Slurm's logs.",
    ),
    Failure(
        code="killed",
        retryable=True,
        remedy="Ask the node's owner why it was stopped, then submit a new job.",
    ),
    Failure(
        code="requeued",
        retryable=True,
        on="requeued",
        remedy="Submit a new job; the node's administrator requeued this one too often.",
    ),
    Failure(
        code="preempted",
        retryable=True,
        on="preempted",
        remedy="Let retry_policy.on name preempted, or use a queue or QOS that nobody preempts.",
    ),
    Failure(
        code="oom",
        retryable=True,
        on="oom",
        remedy="Ask for more resource_shape.memory_mib, or let retry_policy.on name oom.",
    ),
    Failure(
        code="timeout",
        retryable=True,
        on="timeout",
        remedy="Ask for more resource_shape.walltime_seconds, or let the program write checkpoints and"
        " retry_policy.on name timeout.",
    ),
    Failure(
        code="node_fail",
        retryable=True,
        on="node_fail",
        remedy="Submit a new job, or let retry_policy.on name node_fail.",
    ),
    Failure(
        code="boot_fail",
        retryable=True,
        on="node_fail",
        remedy="Submit a new job, or let retry_policy.on name node_fail.",
    ),
    Failure(
        code="scheduler_refused",
        retryable=False,
        remedy="Ask for resources that the queue has; the message says what Slurm refused.",
    ),
    Failure(code="not_retrieved", retryable=True, remedy="Submit a new job."),
    Failure(
        code="inputs_invalid",
        retryable=False,
        remedy="Correct the input that the message names.",
    ),
    Failure(
        code="workchain_unavailable",
        retryable=True,
        remedy="Ask the node's owner to install the plugin again, then submit a new job.",
    ),
    Failure(
        code="workchain_failed",
        retryable=False,
        remedy="Look up the exit status in the documentation of the work chain.",
    ),
    Failure(
        code="image_missing",
        retryable=True,
        remedy="Ask the node's owner to add the image, or to let the node pull it, then submit a new job.",
    ),
    Failure(
        code="image_damaged",
        retryable=True,
        remedy="Ask the node's owner to verify the image and add it again, then submit a new job.",
    ),
    Failure(
        code="image_pull_failed",
        retryable=True,
        remedy="Submit a new job later; if it recurs, ask the node's owner about the registry.",
    ),
    Failure(
        code="image_mismatch",
        retryable=True,
        remedy="Ask the node's owner about the image store that compute nodes see, then submit a new job.",
    ),
    Failure(
        code="image_unavailable",
        retryable=True,
        remedy="Ask the node's owner about the node's image store, then submit a new job.",
    ),
    Failure(
        code="execution_failed",
        retryable=True,
        remedy="Submit a new job; if it recurs, ask the node's owner, who has the process report.",
    ),
    Failure(
        code="deadline_exceeded",
        retryable=False,
        remedy="Submit a new job with a later deadline, or none.",
    ),
    Failure(
        code="launch_failed",
        retryable=True,
        remedy="Submit a new job; if it recurs, ask the node's owner about the node and its compute nodes.",
    ),
    Failure(
        code="launch_refused",
        retryable=True,
        on="requeued",
        remedy="Submit a new job; if it recurs, ask the node's owner why Slurm drained compute nodes.",
    ),
)

FAILURES: dict[str, Failure] = {failure.code: failure for failure in _CATALOGUE}


def job_error(code: str, message: str) -> dict[str, Any]:
    """The `error` of a failed job's event: a `JobError`, as facts of a report are written."""
    failure = FAILURES[code]
    return {
        "code": code,
        "message": one_line(message),
        "retryable": failure.retryable,
        "remedy": failure.remedy,
    }
