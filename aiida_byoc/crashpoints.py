"""Named moments at which a process may die: inert unless a test armed one.

`BYOC_CRASH_DIR` names a directory; a file `<name>` in it arms that point for the next process that passes it. The
process takes the file away (so that it dies once), leaves `<name>.hit`, and kills itself as SIGKILL would from outside.
"""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "reached"]

_DIRECTORY = os.environ.get("BYOC_CRASH_DIR")

POINTS: dict[str, str] = {
    "ledger.claimed": "the claim and its event are written, not committed",
    "ledger.committed": "the claim is committed, no verdict has left",
    "verdict.sent": "the adapter has the verdict",
    "launch.created": "work chain, checkpoint and event are written, not committed",
    "launch.committed": "the work chain is committed; with a broker apart from Postgres, no task exists",
    "launch.dispatched": "only with a broker apart from Postgres: the task exists, the ledger does not say so",
    "task.claimed": "a worker owns a task, and has not begun it",
    "child.stored": "the calculation is stored and has no task; with `byoc.postgres` neither is committed",
    "child.submitted": "the work chain submitted its calculation, its own checkpoint is older",
    "slurm.submitted": "Slurm has the attempt, AiiDA does not know its job id",
    "slurm.ended": "the witnesses say that the attempt has ended, the node does not know",
    "event.appended": "state and event are written, not committed",
    "relay.claimed": "a lane of the relay has claimed jobs, nothing was read",
    "relay.read": "the relay holds a batch, nothing was sent",
    "relay.acknowledged": "the product has the batch, the outbox does not know",
    "tasks.told": "an array knows which of its tasks are not wanted, the ledger does not say so",
    "stop.confirmed": "nothing is left of a stopped job in Slurm, its end is not told",
    "repair.played": "a paused process was told to play on, nobody noted it",
    "sweep.found": "the sweep found something untold, and has not told it",
    "retention.deleted": "a job's events and command are deleted, not committed",
}
"""Every point of this package and what is true at that moment, in the order in which a job passes them."""


_ARMED: dict[str, str] = {name: f"{_DIRECTORY}/{name}" for name in POINTS}


def reached(name: str) -> None:
    """Die here if a test armed this point; cost nothing otherwise."""
    if _DIRECTORY is None:
        return
    armed = _ARMED[name]
    try:
        os.rename(armed, f"{armed}.hit")  # noqa: PTH104  (Path takes longer than the rest of some loops)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
