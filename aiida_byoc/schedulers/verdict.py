"""What the witnesses' words mean: the one table that says when an attempt has ended.

An attempt has ended when two witnesses agree, or when it can be shown that no copy of it runs or ever will. Everything
else is doubt, and doubt is told (`held`), not guessed away.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from aiida_byoc.schedulers.witnesses import ENDED_STATES, NODE, Evidence

__all__ = ["MARGIN", "Finding", "Verdict", "judge"]

MARGIN = 600.0
"""Seconds beyond its walltime after which a job that was running is over: Slurm's timers, the kill, a slow disk."""


class Finding(Enum):
    """What to do next."""

    WAIT = auto()
    """The job waits, runs or is being cleaned up."""
    CLOSE = auto()
    """Nobody has run it: take the fence, so that nobody ever will, and look again."""
    DOUBT = auto()
    """The witnesses contradict each other, or one is silent: look again later."""
    ENDED = auto()
    """It is over; what it left can be fetched."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The finding.

    Attributes:
        finding: what to do.
        reason: one sentence for people, when in doubt.
        job: the Slurm id that the attempt goes by, where another one than ours may count: the copy that is active,
            the one that ran.
    """

    finding: Finding
    reason: str = ""
    job: str | None = None


def judge(seen: Evidence, *, doubted: float, walltime: float) -> Verdict:
    """Decide.

    Args:
        seen: what Slurm and the job's directory say now.
        doubted: seconds for which a job that may run without Slurm's knowledge has been doubted without a break.
        walltime: seconds that the job may run.
    """
    if not seen.controller:
        return Verdict(finding=Finding.DOUBT, reason="Slurm's controller does not answer")
    active = [job for job, state in seen.jobs.items() if state not in ENDED_STATES]
    if active:
        return Verdict(finding=Finding.WAIT, job=min(active, key=int))
    ran = seen.fence if seen.fence not in {None, "", NODE} else None
    over = Verdict(finding=Finding.ENDED, job=ran)
    if seen.record or seen.fence == NODE or doubted > walltime + MARGIN:
        return over
    if seen.directory and seen.fence is None:
        return Verdict(finding=Finding.CLOSE)
    doubt = _doubt(seen, ran)
    return Verdict(finding=Finding.DOUBT, reason=doubt) if doubt else over


def _doubt(seen: Evidence, ran: str | None) -> str | None:
    """What does not fit together where no record and no active job is; `None`: Slurm says that it failed."""
    if not seen.directory:
        return "the job's directory is not there"
    # A job that died before it wrote its id into the fence: the one that Slurm knows.
    known = {**seen.accounts, **seen.jobs}
    state = known.get(ran) if ran else next(iter(known.values()), None)
    if state not in ENDED_STATES:
        who = f"job {ran}, which ran it" if ran else "the job that ran it"
        account = f" (accounting: {state})" if state else ""
        return f"Slurm does not know {who}{account}, and there is no completion record"
    # Of an array the controller may have forgotten elements that failed, while it knows others.
    if state == "COMPLETED" and not seen.is_array:
        return "Slurm says that the job completed, but there is no completion record"
    return None
