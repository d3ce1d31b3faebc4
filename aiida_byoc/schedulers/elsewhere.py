"""What other schedulers than `byoc.slurm` still have of a calculation, asked through AiiDA's own plugin for them."""

from __future__ import annotations

from typing import Any

from aiida.orm import CalcJobNode
from aiida.schedulers.datastructures import JobState

from aiida_byoc.schedulers.verdict import Finding, Verdict

__all__ = ["stopped"]


def stopped(attempt: CalcJobNode, transport: Any) -> Verdict:
    """Cancel the calculation's job if the scheduler has it; ended once it has it no more.

    There is no second witness: such a job has no fence and writes no record.
    """
    job = attempt.get_job_id()
    if job is None:
        return Verdict(finding=Finding.ENDED)
    scheduler = attempt.computer.get_scheduler()
    scheduler.set_transport(transport)
    known = scheduler.get_jobs(jobs=[job])
    if any(each.job_id == job and each.job_state is not JobState.DONE for each in known):
        scheduler.kill_job(job)
        return Verdict(finding=Finding.WAIT)
    return Verdict(finding=Finding.ENDED)
