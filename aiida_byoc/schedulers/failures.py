"""The truth table of ends, as data: what Slurm says and what the job itself recorded, to one named end.

The first row that matches says how an attempt ended. `docs/failures.md` shows the same table; a test compares the two,
and each row that real Slurm can produce is produced in `tests/engine/test_failures.py`, those of arrays in
`tests/engine/test_arrays.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiida_byoc.contracts.failures import FAILURES
from aiida_byoc.runtimes.in_job import FENCED
from aiida_byoc.schedulers.ending import Ending
from aiida_byoc.schedulers.ends import ENDS, End, Record

__all__ = ["OVER_MEMORY", "ROWS", "Row", "explain", "rendered"]

OVER_MEMORY = "Exceeded job memory limit"
"""What slurmd writes to the job's stderr where no cgroup reports OUT_OF_MEMORY (the state is FAILED then)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row; what is not given matches anything.

    Attributes:
        state: Slurm's final state; "" is: Slurm does not know the job (any more).
        over_memory: slurmd wrote `OVER_MEMORY` to the job's stderr.
        restarted: Slurm had put the job back into its queue.
        refused: the compute node did not start the job.
        code: names the end; `None` is success.
    """

    state: tuple[str, ...] = ()
    exit: tuple[int, ...] = ()
    signal: int | None = None
    reason: str | None = None
    over_memory: bool = False
    restarted: bool = False
    refused: bool = False
    record: tuple[Record, ...] = ()
    code: str | None

    def matches(self, seen: Ending, record: Record, *, over_memory: bool) -> bool:
        """Whether it is this row's case."""
        return (
            (not self.state or (seen.state or "") in self.state)
            and (not self.exit or seen.exit in self.exit)
            and (self.signal is None or seen.signal == self.signal)
            and (self.reason is None or seen.reason == self.reason)
            and (not self.over_memory or over_memory)
            and (not self.restarted or seen.restarts > 0)
            and (not self.refused or seen.refused)
            and (not self.record or record in self.record)
        )


_NOT_RUN = (Record.NONE, Record.UNREAD)
_ANSWERS = (Record.CHECKPOINTED, Record.SIGNALLED, Record.STOPPED, Record.TOLD_TO_END)
"""How a program may end that heard a signal."""

# A program that ended by itself is believed, whatever Slurm does to the job afterwards; except when one of its
# processes was killed for memory, whose absence it may not have noticed.
ROWS = (
    Row(record=(Record.INVALID,), code="record_invalid"),
    Row(record=(Record.NO_IMAGE,), code="image_missing"),
    Row(record=(Record.OTHER_IMAGE,), code="image_mismatch"),
    Row(record=(Record.ALTERED,), code="output_altered"),
    Row(state=("OUT_OF_MEMORY",), code="oom"),
    Row(record=(Record.COMPLETE,), code=None),
    Row(state=("FAILED", ""), over_memory=True, code="oom"),
    Row(record=(Record.NO_INPUT,), code="input_unavailable"),
    Row(record=(Record.UNUSABLE,), code="runtime_unusable"),
    Row(record=(Record.NOT_STARTED,), code="container_not_started"),
    Row(record=(Record.FAILED,), code="container_failed"),
    Row(record=(Record.TASKS_FAILED,), code="tasks_failed"),
    Row(record=(Record.CHANGING,), code="output_altered"),
    Row(record=(Record.TOO_MANY,), code="too_many_outputs"),
    Row(record=(Record.TOO_LARGE,), code="output_too_large"),
    Row(record=(Record.INCOMPLETE,), code="output_missing"),
    Row(state=("TIMEOUT",), code="timeout"),
    Row(state=("NODE_FAIL",), code="node_fail"),
    Row(state=("BOOT_FAIL",), code="boot_fail"),
    Row(state=("PREEMPTED",), code="preempted"),
    Row(state=("CANCELLED",), refused=True, record=_NOT_RUN, code="launch_refused"),
    Row(state=("CANCELLED", "REVOKED"), code="killed"),
    Row(state=("DEADLINE",), code="deadline_exceeded"),
    Row(
        state=("FAILED",),
        exit=(FENCED,),
        restarted=True,
        record=(Record.NONE, *_ANSWERS),
        code="requeued",
    ),
    Row(
        state=("COMPLETED", "FAILED"),
        restarted=True,
        record=(Record.STOPPED, Record.TOLD_TO_END),
        code="requeued",
    ),
    Row(record=(Record.SIGNALLED,), code="container_failed"),
    Row(record=(Record.CHECKPOINTED,), code="timeout"),
    Row(record=(Record.STOPPED,), code="killed"),
    Row(record=(Record.TOLD_TO_END,), code=None),
    Row(state=("FAILED",), reason="BadConstraints", record=_NOT_RUN, code="scheduler_refused"),
    Row(state=("FAILED",), signal=53, record=_NOT_RUN, code="launch_failed"),
    Row(state=("FAILED",), exit=(126, 127), record=(Record.NONE,), code="launch_failed"),
    Row(record=(Record.NONE,), code="lost"),
)


def explain(seen: Ending, record: Record, *, stderr: str = "") -> End | None:
    """How the attempt ended; `None` when nothing speaks against success.

    Args:
        stderr: of the batch job. A program writes there as well: its words count only where Slurm does not contradict
            them.
    """
    over_memory = OVER_MEMORY in stderr
    code = next(
        (row.code for row in ROWS if row.matches(seen, record, over_memory=over_memory)), None
    )
    return ENDS[code] if code else None


_HEAD = (
    *("Slurm's state", "Exit", "Signal", "Reason and signs", "Completion record"),
    *("`error.code`", "Exit status", "`retryable`", "`retry_policy.on`", "Remedy"),
)


def rendered() -> str:
    """The table as `docs/failures.md` has it."""
    rows = [_HEAD, *(_rendered(row) for row in ROWS)]
    head, *body = [f"| {' | '.join(cells)} |\n" for cells in rows]
    return "".join([head, "|---" * len(_HEAD) + "|\n", *body])


def _rendered(row: Row) -> tuple[str, ...]:
    signs = [f"`{row.reason}`"] if row.reason else []
    signs += [f'stderr: "{OVER_MEMORY}"'] if row.over_memory else []
    signs += ["requeued before"] if row.restarted else []
    signs += ["its node refused it"] if row.refused else []
    conditions = [
        ", ".join(f"`{state}`" if state else "unknown" for state in row.state),
        ", ".join(map(str, row.exit)),
        "" if row.signal is None else str(row.signal),
        ", ".join(signs),
        ", ".join(record.value for record in row.record),
    ]
    if row.code is None:
        outcome = ["success", "0", "", "", ""]
    else:
        failure = FAILURES[row.code]
        retryable = "yes" if failure.retryable else "no"
        on = f"`{failure.on}`" if failure.on else ""
        outcome = [f"`{row.code}`", str(ENDS[row.code].status), retryable, on, failure.remedy]
    return tuple(cell or "\N{EN DASH}" for cell in [*conditions, *outcome])


if __name__ == "__main__":
    print(rendered(), end="")
