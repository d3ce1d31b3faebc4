"""`byoc.slurm`: AiiDA's Slurm plugin that adopts a submitted job instead of submitting it again.

An `sbatch` may report a time-out although the job was created, and a worker may die between `sbatch` and the commit of
the job id (facts: Nextflow #970, AiiDA #3183). So every job has a name unique to its attempt, and the submit command
looks for that name before it submits. Slurm's `singleton` dependency and the fence in the job are the second and third
line.
"""

from __future__ import annotations

import re

from aiida.engine import CalcJob, ExitCode
from aiida.schedulers.datastructures import JobInfo, JobState
from aiida.schedulers.plugins.slurm import SlurmScheduler

__all__ = [
    "CANCELLED",
    "PREEMPTED",
    "REFUSED",
    "ByocSlurmScheduler",
    "final_state",
    "job_directives",
]

REFUSED = 132
"""Exit status of a job that Slurm refused for good (the band of AiiDA's scheduler errors, 1xx)."""
PREEMPTED = 141
CANCELLED = 142

_PERMANENT = (
    "Invalid account",
    "Invalid partition",
    "Invalid qos",
    "invalid partition specified",
    "Requested node configuration is not available",
    "More processors requested than permitted",
    "Memory specification can not be satisfied",
    "Requested time limit is invalid",
    "Invalid generic resource",
    "Access/permission denied",
    "User's group not permitted to use this partition",
)
"""What `sbatch` says when trying again cannot help; matched without case."""

_ALSO_ENDED = frozenset({"OOM", "DL", "BF", "RV", "SE"})
"""Compact state codes (squeue(1), JOB STATE CODES) of ended jobs that AiiDA's table leaves out."""

_EXIT_OF_STATE: dict[str, ExitCode] = {
    "OUT_OF_MEMORY": CalcJob.exit_codes.ERROR_SCHEDULER_OUT_OF_MEMORY,
    "TIMEOUT": CalcJob.exit_codes.ERROR_SCHEDULER_OUT_OF_WALLTIME,
    "DEADLINE": CalcJob.exit_codes.ERROR_SCHEDULER_OUT_OF_WALLTIME,
    "NODE_FAIL": CalcJob.exit_codes.ERROR_SCHEDULER_NODE_FAILURE,
    "BOOT_FAIL": CalcJob.exit_codes.ERROR_SCHEDULER_NODE_FAILURE,
    "PREEMPTED": ExitCode(PREEMPTED, "Slurm preempted the job."),
    "CANCELLED": ExitCode(CANCELLED, "The job was cancelled in Slurm."),
}
"""Final states of Slurm (squeue(1), JOB STATE CODES) to exit codes; the first five are AiiDA's own."""

_OUT_OF_MEMORY = "Exceeded job memory limit"
"""What slurmd writes to the job's stderr where no cgroup reports OUT_OF_MEMORY (the state is FAILED then)."""

_STATE = re.compile(
    r"(?:^|\s)JobState=(?P<shown>\w+)|^(?P<accounted>[A-Z_]+)(?: by \d+)?\|", re.MULTILINE
)


def job_directives(name: str, *, gpus: int | None = None) -> str:
    """Header lines: the attempt's unique name (a later `--job-name` wins over AiiDA's), never two of it at a time."""
    lines = [f"#SBATCH --job-name={name}", "#SBATCH --dependency=singleton"]
    if gpus:
        lines.append(f"#SBATCH --gres=gpu:{gpus}")
    return "\n".join(lines)


def final_state(text: str) -> str | None:
    """The job's final state in the words of Slurm, from `scontrol show job` or `sacct`; `None` when neither says."""
    match = _STATE.search(text)
    return (match["shown"] or match["accounted"]) if match else None


class ByocSlurmScheduler(SlurmScheduler):
    """Slurm for jobs that must run once."""

    def _get_submit_command(self, submit_script: str) -> str:
        # `SBATCH_*` in the daemon's environment would override the script's limits. `--states=all` sees jobs that
        # have already ended, for as long as the controller remembers them (MinJobAge). A `squeue` that fails knows
        # nothing of the job: no pipe may hide that, or it would be submitted twice.
        find_name = f"sed -n 's/^#SBATCH --job-name=//p' {submit_script} | tail -n 1"
        find_jobs = 'squeue --noheader --me --states=all --format=%i --name="$name"'
        return (
            f"unset ${{!SBATCH_@}}; name=$({find_name}); jobs=$({find_jobs}) || exit 1; "
            f'if [ -n "$jobs" ]; then echo "Submitted batch job ${{jobs%%[[:space:]]*}}"; '
            f"else sbatch {submit_script}; fi"
        )

    def _parse_submit_output(self, retval: int, stdout: str, stderr: str) -> str | ExitCode:
        lowered = stderr.lower()
        if retval != 0 and any(text.lower() in lowered for text in _PERMANENT):
            self.logger.error(f"sbatch refused the job for good: {stderr.strip()}")
            return ExitCode(REFUSED, f"Slurm refused the job: {stderr.strip()[:300]}")
        answer: str | ExitCode = super()._parse_submit_output(retval, stdout, stderr)
        return answer

    def _get_joblist_command(self, jobs: list[str] | None = None, user: str | None = None) -> str:
        # All states: a job that ended is told from a job that the controller does not know.
        command: str = super()._get_joblist_command(jobs=jobs, user=user)
        return f"{command} --states=all"

    def _parse_joblist_output(self, retval: int, stdout: str, stderr: str) -> list[JobInfo]:
        # `squeue -j ID` fails for an unknown id when only one is asked for: that job is gone, the poll is fine.
        if retval != 0 and "Invalid job id specified" in stderr:
            return []
        jobs: list[JobInfo] = super()._parse_joblist_output(retval, stdout, stderr)
        for job in jobs:
            if job.raw_data and job.raw_data[1] in _ALSO_ENDED:
                job.job_state = JobState.DONE
        return jobs

    def _get_detailed_job_info_command(self, job_id: str) -> str:
        # The controller knows a job for MinJobAge seconds, accounting (where a site has it) for ever.
        return (
            f"scontrol --oneliner show job {job_id} 2>/dev/null || "
            f"sacct --noheader --parsable2 --allocations --format=State,ExitCode --jobs={job_id}"
        )

    def parse_output(
        self,
        detailed_job_info: dict[str, str | int] | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
    ) -> ExitCode | None:
        """Turn Slurm's final state into an exit code; `None` where Slurm has nothing against success."""
        state = final_state(str((detailed_job_info or {}).get("stdout", "")))
        # The program writes there as well: its words count only where Slurm does not contradict them.
        if state in {None, "FAILED"} and _OUT_OF_MEMORY in (stderr or ""):
            return _EXIT_OF_STATE["OUT_OF_MEMORY"]
        return _EXIT_OF_STATE.get(state or "")
