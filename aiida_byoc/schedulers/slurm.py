"""`byoc.slurm`: AiiDA's Slurm plugin that adopts a submitted job instead of submitting it again.

An `sbatch` may report a time-out although the job was created, and a worker may die between `sbatch` and the commit of
the job id (facts: Nextflow #970, AiiDA #3183). So every job has a name unique to its attempt, and the submit command
looks for that name before it submits, and after an `sbatch` that failed. Slurm's `singleton` dependency and the fence
in the job are the second and third line.

A controller that is killed forgets jobs and gives their ids to others (measured: 8 of 8 within 5 s of a state save). So
the job id that AiiDA stores holds id *and* name, and every poll, question and `scancel` checks both, and the user.
"""

from __future__ import annotations

import re
import shlex

from aiida.common.datastructures import CodeRunMode
from aiida.engine import ExitCode
from aiida.schedulers.datastructures import JobInfo, JobState, JobTemplate, JobTemplateCodeInfo
from aiida.schedulers.plugins.slurm import SlurmScheduler
from aiida.schedulers.scheduler import SchedulerError

from aiida_byoc import crashpoints
from aiida_byoc.runtimes.in_job import FENCE, OWNER, START, packed
from aiida_byoc.schedulers.elements import folded, one_for_each_array
from aiida_byoc.schedulers.ending import ending, ending_command
from aiida_byoc.schedulers.ends import Record
from aiida_byoc.schedulers.failures import explain
from aiida_byoc.schedulers.options import CLIENT, GRAMMAR, NotAskedError, environment, header
from aiida_byoc.schedulers.witnesses import FUNCTIONS, NODE, PATIENCE, SUBMITTING

__all__ = [
    "REFUSED",
    "ByocSlurmScheduler",
    "LimitReached",
    "identity",
    "scancel_command",
    "slurm_id",
]

REFUSED = 132
"""Exit status of a job that Slurm refused for good (the band of AiiDA's scheduler errors, 1xx)."""

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
    "Invalid job array specification",
    "Access/permission denied",
    "User's group not permitted to use this partition",
    "this attempt was given up",
    "this job has no name of its own",
    "sbatch is not asked for",
)
"""What `sbatch` says when trying again cannot help; matched without case."""

_LIMITS = {
    r"\b((?:Assoc|QOS)\w*Submit\w*Limit)\b": None,
    r"Slurm temporarily unable to accept job|job queue full": "MaxJobCount",
    r"submission failed: Resource temporarily unavailable": "MaxJobCount",
}
"""What `sbatch` says when it is a matter of time, matched without case, and the limit's name in Slurm, if it says none:
`MaxSubmitJobs` of an association or QOS (sacctmgr(1)), and slurm.conf's `MaxJobCount`."""

_SHELL, _SMALL_SHELL = "#!/bin/bash", "#!/bin/sh"
"""What AiiDA's scripts are for; what does for one command, and starts in half of the time where it is dash."""

_WORDS = " ".join(f"'{word}'" for word in packed.START)
_ELEMENT = re.compile(
    rf"{_SHELL}\n((?:#SBATCH .*\n)+)\nexec '(/[\w./+-]{{1,100}})' {re.escape(_WORDS)}\s*"
)
"""A script with nothing in it but the start of an array's element, of which there are many: it needs no shell."""
_FLAGS = "-" + "".join(word[1:] for word in packed.START[:-2])
"""Python's, as one word: Linux passes no more of the first line of a script."""

_ALSO_ENDED = frozenset({"OOM", "DL", "BF", "RV"})
"""Compact state codes (squeue(1), JOB STATE CODES) of ended jobs that AiiDA's table leaves out."""

_SUBMIT = """\
LC_ALL=C
grammar={grammar} name= options=(--export=ALL)
{{
  read -r
  while IFS= read -r line && [ -n "$line" ]; do
    option=${{line#'#SBATCH '}}
    [[ $line =~ ^$grammar$ ]] || {{ echo "byoc: sbatch is not asked for ${{option//[^a-z_ =-]/?}}" >&2; exit 1; }}
    options+=("$option")
    [[ $option != --job-name=* ]] || name=${{option#*=}}
  done
}} < {script}
case $name in aiida-*) name=$name-$(pwd | sha256sum | cut -c 1-16); options+=("--job-name=$name") ;; esac
[ -n "$name" ] || {{ echo 'byoc: this job has no name of its own' >&2; exit 1; }}
echo "byoc job name $name"
exec 9>> {lock}
flock --wait {lock_wait} 9 || {{ echo 'byoc: this attempt is being submitted already' >&2; exit 1; }}
{functions}
adopt() {{
  owner=$(cat {fence}/{owner} 2> /dev/null)
  case $owner in
    {node}) echo 'byoc: this attempt was given up' >&2; exit 1 ;;
    *[!0-9]* | '') ;;
    *) echo "Submitted batch job $owner"; exit 0 ;;
  esac
  jobs=$(queued) || exit 1
  [ -n "$jobs" ] || jobs=$(accounted 2> /dev/null)
  [ -z "$jobs" ] || {{ echo "Submitted batch job $(tr '|' ' ' <<< "$jobs" | sort -n | head -n 1)"; exit 0; }}
}}
adopt
exec 3>&1
( echo "$BASHPID"; exec timeout {submit_wait} {client} sbatch "${{options[@]}}" {script} 2>&1 >&3 ) | {{
  read -r sbatch
  while IFS= read -r line; do
    echo "$line" >&2
    [[ $line != *'sleeping and retrying'* ]] || kill "$sbatch"
  done
}}
failed=${{PIPESTATUS[0]}}
[ "$failed" != 0 ] || exit 0
adopt
exit $failed
"""
"""The script's header, up to its first empty line, is repeated on the command line: `options.py` says why. A job that
left its fence is adopted also when the controller has forgotten it. A `squeue` that fails knows nothing of the job, so
nothing is submitted then. Where Slurm has no room `sbatch` sleeps and tries again, for two minutes, and the worker
would with it (AiiDA submits in its event loop): that is cut short."""

_SUBMIT_WAIT = 60
"""Seconds; `sbatch` gives up by itself after Slurm's MessageTimeout (10 s), in most cases."""

_NAME = re.compile(r"^byoc job name (\S+)$", re.MULTILINE)


def identity(slurm_job: str, name: str) -> str:
    """The job id that AiiDA stores: Slurm's own, which Slurm re-uses, and the attempt's name, which nobody does.

    Neither a Slurm id nor a name of ours has a slash, and no shell reads anything into one.
    """
    return f"{slurm_job}/{name}"


def slurm_id(job_id: str) -> str:
    """Slurm's own id of a job."""
    return job_id.partition("/")[0]


def scancel_command(slurm_job: str, name: str) -> str:
    """Cancel that job if it is ours: Slurm combines the filters (measured, 22.05), so another's is left alone."""
    return f'timeout {PATIENCE} {CLIENT} scancel --name={shlex.quote(name)} --user="$(id -un)" {slurm_job}'


class LimitReached(SchedulerError):
    """Slurm takes no more jobs for now; nothing was submitted, and trying again later helps.

    Attributes:
        name: the limit's, in Slurm's words.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Slurm takes no more jobs now: {name}")


class ByocSlurmScheduler(SlurmScheduler):
    """Slurm for jobs that must run once."""

    def get_submit_script(self, job_tmpl: JobTemplate) -> str:
        """The job script; one that the submit command refuses, if a part of the job is not for Slurm or the shell."""
        try:
            script: str = super().get_submit_script(job_tmpl)
        except NotAskedError as error:
            return f"{_SHELL}\n#SBATCH {error}\n"
        if element := _ELEMENT.fullmatch(script):
            return f"#!{element[2]} {_FLAGS}\n{element[1]}\n{packed.START[-1]}\n"
        if _is_ours(job_tmpl.codes_info) and not job_tmpl.prepend_text:
            script = re.sub(f"^{_SHELL}\n", f"{_SMALL_SHELL}\n", script)
        return script

    def _get_submit_script_header(self, job_tmpl: JobTemplate) -> str:
        return header(job_tmpl, super()._get_submit_script_header(job_tmpl))

    def _get_submit_script_environment_variables(self, template: JobTemplate) -> str:
        environment(template)
        lines: str = super()._get_submit_script_environment_variables(template)
        return lines

    def _get_run_line(
        self, codes_info: list[JobTemplateCodeInfo], codes_run_mode: CodeRunMode
    ) -> str:
        for code in codes_info:
            if code.wrap_cmdline_params or any(code.use_double_quotes):
                raise NotAskedError("a command line that the shell expands")
        # Slurm signals the batch script's own process (`--signal=B:`, `scancel --batch`), so our program takes its
        # place. The script ends with it, whatever a computer or a code wants to append.
        line: str = super()._get_run_line(codes_info, codes_run_mode)
        return f"exec {line}" if _is_ours(codes_info) else line

    def _get_submit_command(self, submit_script: str) -> str:
        return _SUBMIT.format(
            script=submit_script,
            grammar=shlex.quote(GRAMMAR),
            client=CLIENT,
            functions=FUNCTIONS,
            fence=FENCE,
            owner=OWNER,
            node=NODE,
            lock=SUBMITTING,
            submit_wait=_SUBMIT_WAIT,
            lock_wait=_SUBMIT_WAIT + 2 * PATIENCE,
        )

    def _parse_submit_output(self, retval: int, stdout: str, stderr: str) -> str | ExitCode:
        lowered = stderr.lower()
        if retval != 0 and any(text.lower() in lowered for text in _PERMANENT):
            self.logger.error(f"sbatch refused the job for good: {stderr.strip()}")
            return ExitCode(REFUSED, f"Slurm refused the job: {stderr.strip()[:300]}")
        if retval != 0 and (limit := _limit_in(stderr)):
            raise LimitReached(limit)
        answer: str | ExitCode = super()._parse_submit_output(retval, stdout, stderr)
        name = _NAME.search(stdout)
        if not isinstance(answer, str) or name is None:
            raise SchedulerError(f"the submission did not name its job: {stdout}")
        crashpoints.reached("slurm.submitted")
        return identity(answer, name[1])

    def _get_joblist_command(self, jobs: list[str] | None = None, user: str | None = None) -> str:
        # All states: a job that ended is told from a job that the controller does not know. The command blocks the
        # worker, hence the limit.
        ids = [slurm_id(job) for job in jobs or []]
        command: str = super()._get_joblist_command(jobs=ids, user=user)
        _, _, question = command.partition("squeue")
        if len(ids) == 1:
            # AiiDA names a lone job twice, and `squeue` asks the controller for all that it has then. Of one that is
            # gone we read the error.
            question = question.replace(f"={ids[0]},{ids[0]}", f"={ids[0]}")
        return f"timeout {PATIENCE} {CLIENT} SLURM_TIME_FORMAT=standard squeue {question} --states=all --me"

    def _parse_joblist_output(self, retval: int, stdout: str, stderr: str) -> list[JobInfo]:
        # `squeue -j ID` fails for an unknown id when only one is asked for: that job is gone, the poll is fine.
        if retval != 0 and "Invalid job id specified" in stderr:
            return []
        jobs: list[JobInfo] = super()._parse_joblist_output(retval, folded(stdout), stderr)
        for job in jobs:
            # By the name that Slurm says: somebody else's job under our id is not what was asked for.
            job.job_id = identity(job.job_id.partition("_")[0], job.title or "")
            if job.raw_data and job.raw_data[1] in _ALSO_ENDED:
                job.job_state = JobState.DONE
        return one_for_each_array(jobs)

    def _get_kill_command(self, jobid: str) -> str:
        job, _, name = jobid.partition("/")
        return scancel_command(job, name)

    def _get_detailed_job_info_command(self, job_id: str) -> str:
        job, _, name = job_id.partition("/")
        return ending_command(job, name)

    def parse_output(
        self,
        detailed_job_info: dict[str, str | int] | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
    ) -> ExitCode | None:
        """Turn Slurm's word into an exit code; `None` where it has nothing against success."""
        seen = ending(str((detailed_job_info or {}).get("stdout", "")))
        end = explain(seen, Record.UNREAD, stderr=stderr or "")
        return ExitCode(end.status, end.told(seen)) if end else None


def _is_ours(codes: list[JobTemplateCodeInfo]) -> bool:
    words = [tuple(code.cmdline_params[-len(START) :]) for code in codes]
    return words in ([START], [packed.START])


def _limit_in(stderr: str) -> str | None:
    """The limit that `sbatch` ran into, if it is one that passes."""
    for pattern, name in _LIMITS.items():
        if found := re.search(pattern, stderr, re.IGNORECASE):
            return name or found[1]
    return None
