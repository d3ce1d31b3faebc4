"""What a work chain's end means for its job: exit codes of AiiDA to the words of the contract, as data.

The hook (in the transaction of the end), the stopper (once Slurm has confirmed) and the sweep (for ends no hook saw)
ask here, so they cannot disagree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiida.common import NotExistent
from aiida.orm import CalcJobNode, ProcessNode
from plumpy import ProcessState

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.events import MAX_OUTPUTS, one_line
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events.outbox import Report
from aiida_byoc.workflows.results import result_of

__all__ = ["CANCELLED_STATUS", "ERRORS", "FOREIGN", "GONE", "OPEN", "attempts", "gone", "outcome"]

GONE = "byoc_gone"
"""Extra of a calculation that did not reach its own end: when it was shown that nothing of it is left in Slurm, nor
can come there, be it that its process goes on."""
OPEN = "byoc_open"
"""Extra of a work chain that ended while one of its attempts might still run: its hook left the end to others."""
FOREIGN = "aiida.workflows:byoc.workchain"
"""Process type of a work chain whose processes are other plugins'."""
CANCELLED_STATUS = 501
"""Exit status of a work chain that found itself cancelled before it submitted anything more."""

ERRORS: dict[int, tuple[str, bool]] = {
    100: ("not_retrieved", True),
    110: ("oom", True),
    120: ("timeout", True),
    131: ("scheduler_refused", False),
    132: ("scheduler_refused", False),
    140: ("node_fail", True),
    141: ("preempted", True),
    142: ("killed", True),
    302: ("killed", True),
    303: ("output_missing", False),
    304: ("lost", True),
    305: ("record_invalid", True),
    306: ("output_altered", True),
    307: ("output_too_large", False),
    308: ("too_many_outputs", False),
    330: ("input_unavailable", True),
    320: ("container_not_started", False),
    321: ("runtime_unusable", True),
    322: ("image_mismatch", True),
    323: ("image_missing", True),
    400: ("container_failed", False),
    500: ("image_missing", True),
    502: ("image_damaged", True),
    503: ("image_unavailable", True),
    510: ("inputs_invalid", False),
    511: ("workchain_unavailable", True),
    512: ("workchain_failed", False),
}
"""Exit status → (error code, whether submitting the job anew can help). Anything else is `execution_failed`."""


def outcome(node: ProcessNode, state: ProcessState, *, is_cancelled: bool) -> Report | None:
    """The terminal report of a job whose work chain is in `state`; `None` while one of its attempts may still run.

    A work chain is `killed` before anything is known of its Slurm job, so the end of the process is not the end of the
    job: `commands/stopping.py` sees to it that each attempt becomes `gone`.

    A cancelled job whose attempts are gone has ended whatever its work chain does: nothing of it comes to Slurm any
    more. How its processes broke off (Slurm's `CANCELLED` as their failure, say) is not what became of it.

    Inside the transaction of the end the node's own `process_state` may lag behind, hence the argument; AiiDA commits
    exit status and message before the state.
    """
    tried = attempts(node)
    if not all(gone(attempt) for attempt in tried):
        return None
    now = datetime.now(UTC)
    if node.process_type == FOREIGN:
        facts = result_of(node, now)
    else:
        facts = _facts_of_record(max(tried, key=lambda attempt: attempt.pk or 0, default=None))
    if state is ProcessState.FINISHED and node.exit_status == 0 and "result" in facts:
        return Report(state=ExecutionState.SUCCEEDED, occurred_at=now, facts=facts)
    if is_cancelled or state is ProcessState.KILLED or node.exit_status == CANCELLED_STATUS:
        return Report(
            state=ExecutionState.CANCELLED,
            occurred_at=now,
            reason="the job was stopped",
            facts=facts,
        )
    code, retryable = ERRORS.get(node.exit_status or 0, ("execution_failed", True))
    message = (
        node.exit_message or "the execution broke off; its process report on the node says why"
    )
    error = {"code": code, "message": one_line(message), "retryable": retryable}
    return Report(state=ExecutionState.FAILED, occurred_at=now, facts={**facts, "error": error})


def attempts(node: ProcessNode) -> list[CalcJobNode]:
    """The calculations of a job, in no particular order: its attempts, or whatever an approved work chain called."""
    return [called for called in node.called_descendants if isinstance(called, CalcJobNode)]


def gone(attempt: CalcJobNode) -> bool:
    """Whether nothing of the attempt is, or can come to be, in Slurm.

    One that finished was told by its witnesses, or refused by Slurm; one without a directory never got that far.
    """
    if GONE in attempt.base.extras.all:
        return True
    reached_slurm = attempt.get_remote_workdir() is not None
    return attempt.is_terminated and (attempt.is_finished or not reached_slurm)


def _facts_of_record(node: CalcJobNode | None) -> dict[str, Any]:
    """The parts of the full state that the completion record holds; nothing without a record."""
    if node is None:
        return {}
    try:
        record = node.outputs.record.get_dict()
    except (NotExistent, AttributeError):
        return {}
    facts: dict[str, Any] = {
        "scheduler": {"job_id": record["scheduler_job_id"]},
        "timings": {
            "started": _instant(record["started_at"]),
            "ended": _instant(record["ended_at"]),
        },
    }
    if record.get("exit_code") is not None:
        facts["result"] = {
            "exit_code": record["exit_code"],
            "image_digest": record.get("image_digest"),
            "outputs": record["outputs"][:MAX_OUTPUTS],
            "outputs_omitted": len(record["outputs"][MAX_OUTPUTS:]) or None,
            "usage": record["usage"],
        }
    return facts


def _instant(seconds: float) -> str:
    return utc_now_text(datetime.fromtimestamp(seconds, UTC))
