"""What a work chain's end means for its job: exit codes of AiiDA to the words of the contract, as data.

The hook (in the transaction of the end), the stopper (once Slurm has confirmed) and the sweep (for ends no hook saw)
ask here, so they cannot disagree.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from aiida.orm import CalcJobNode, ProcessNode
from plumpy import ProcessState

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.events import MAX_OUTPUTS
from aiida_byoc.contracts.failures import job_error
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events.outbox import Report
from aiida_byoc.schedulers.ends import ENDS
from aiida_byoc.workflows.killed import output_of
from aiida_byoc.workflows.results import result_of

__all__ = ["CANCELLED_STATUS", "CODES", "FOREIGN", "GONE", "OPEN", "attempts", "gone", "outcome"]

GONE = "byoc_gone"
"""Extra of a calculation that did not reach its own end: when it was shown that nothing of it is left in Slurm, nor
can come there, be it that its process goes on."""
OPEN = "byoc_open"
"""Extra of a work chain that ended while one of its attempts might still run: its hook left the end to others."""
FOREIGN = "aiida.workflows:byoc.workchain"
"""Process type of a work chain whose processes are other plugins'."""
CANCELLED_STATUS = 501
"""Exit status of a work chain that found itself cancelled before it submitted anything more."""

CODES: dict[int, str] = {
    100: "not_retrieved",
    131: "scheduler_refused",
    302: "killed",
    500: "image_missing",
    502: "image_damaged",
    503: "image_unavailable",
    510: "inputs_invalid",
    511: "workchain_unavailable",
    512: "workchain_failed",
    **{end.status: end.code for end in ENDS.values()},
}
"""Exit status → error code: where nothing ran or nothing came back, and the truth table's. Anything else is
`execution_failed`."""


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
        facts = _facts_of_attempt(max(tried, key=lambda attempt: attempt.pk or 0, default=None))
    # An attempt that Slurm refused was never told as `queued`.
    attempt = facts["recovery"]["attempt"] + 1 if "recovery" in facts else None
    report = functools.partial(Report, occurred_at=now, attempt=attempt)
    if state is ProcessState.FINISHED and node.exit_status == 0 and "result" in facts:
        return report(state=ExecutionState.SUCCEEDED, facts=facts)
    if is_cancelled or state is ProcessState.KILLED or node.exit_status == CANCELLED_STATUS:
        return report(state=ExecutionState.CANCELLED, reason="the job was stopped", facts=facts)
    code = CODES.get(node.exit_status or 0, "execution_failed")
    message = (
        node.exit_message or "the execution broke off; its process report on the node says why"
    )
    return report(state=ExecutionState.FAILED, facts={**facts, "error": job_error(code, message)})


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


def _facts_of_attempt(node: CalcJobNode | None) -> dict[str, Any]:
    """The parts of the full state that the newest attempt holds: why there is one, and what its record says."""
    if node is None:
        return {}
    recovery = node.get_option("recovery")
    facts: dict[str, Any] = {"recovery": recovery} if recovery else {}
    found = output_of(node, "record")
    if found is None:
        return facts
    record = found.get_dict()
    if "started_at" in record:
        facts["scheduler"] = {"job_id": record["scheduler_job_id"]}
        facts["timings"] = {
            "started": _instant(record["started_at"]),
            "ended": _instant(record["ended_at"]),
        }
    if record.get("progress") is not None:
        facts["progress"] = record["progress"]
    if record.get("exit_code") is not None:
        facts["result"] = {
            "exit_code": record["exit_code"],
            "image_digest": record.get("image_digest"),
            "outputs": record["outputs"][:MAX_OUTPUTS],
            "outputs_omitted": len(record["outputs"][MAX_OUTPUTS:]) or None,
            "usage": record["usage"],
            "tasks": record.get("tasks"),
        }
    return facts


def _instant(seconds: float) -> str:
    return utc_now_text(datetime.fromtimestamp(seconds, UTC))
