"""What a job may ask of `sbatch`: one grammar; Python reads it when a script is written, bash when it is submitted.

`sbatch` believes its command line before `SBATCH_*`, and those before the script (sbatch(1)). So the submit command
takes the script's header, holds it against the grammar once more, and gives it as options; nothing that stands further
down in the script, and nothing in the environment, changes a limit then.

AiiDA writes partition, account and QOS into the header as they are, and the names of environment variables into the
script (measured: `queue_name='gpu\\nrm -rf ~'` became a line of it). What is not of the grammar makes a script that
nobody can submit, which is a refusal for good; an exception would pause the job as a failure of the cluster does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiida.schedulers.datastructures import JobTemplate

__all__ = [
    "CLIENT",
    "GRAMMAR",
    "NotAskedError",
    "environment",
    "header",
    "job_directives",
    "job_name",
    "name_in_slurm",
]

_WORD = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NUMBER = "[1-9][0-9]{0,9}"
_FILE = "[A-Za-z0-9_%][A-Za-z0-9_.%-]{0,254}"

_OPTIONS: dict[str, str | None] = {
    "account": _WORD,
    "array": "0-[0-9]{1,7}(%[1-9][0-9]{0,6})?",
    "cpus-per-task": _NUMBER,
    "dependency": "singleton",
    "error": _FILE,
    "exclude": f"{_WORD}(,{_WORD})*",
    "get-user-env": None,
    "gres": f"{_WORD}(:{_WORD})?:{_NUMBER}",
    "job-name": "[A-Za-z0-9][A-Za-z0-9_.-]{0,127}",
    "mem": _NUMBER,
    "nice": "-?[0-9]{1,10}",
    "no-requeue": None,
    "nodes": _NUMBER,
    "ntasks-per-node": _NUMBER,
    "open-mode": "append",
    "output": _FILE,
    "partition": _WORD,
    "qos": _WORD,
    "requeue": None,
    "signal": f"(B:)?(USR1|USR2|TERM|INT)@{_NUMBER}",
    "time": "([0-9]{1,6}-)?[0-9]{2}:[0-9]{2}:[0-9]{2}",
    "tmp": _NUMBER,
}
"""Options of sbatch(1) and their values, as extended regular expressions; `None`: it has no value."""

GRAMMAR = "#SBATCH --({})".format(
    "|".join(name if value is None else f"{name}={value}" for name, value in _OPTIONS.items())
)
"""One line of a header, whole; both bash (with `LC_ALL=C`) and Python read it."""

_UNNAMED = re.compile(r'#SBATCH --job-name="(aiida-(?:[0-9]+|None))"')
"""AiiDA's name of a job: may be another profile's as well, so it identifies nothing by itself. `None` in a dry run."""

_RAW = (
    "queue_name",
    "account",
    "qos",
    "email",
    "sched_output_path",
    "sched_error_path",
    "priority",
)
"""What AiiDA writes into the header as it is."""

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "SLURM_CONF", "SLURM_JWT")

CLIENT = "env -i " + " ".join(f'${{{name}+"{name}=${name}"}}' for name in _KEPT)
"""Shell: before a command of Slurm's, which any `SBATCH_*`, `SQUEUE_*`, `SCANCEL_*`, `SACCT_*` or `SLURM_*` may change.

What `sbatch` sees becomes the job's environment as well: nothing else of the daemon's gets there. `--export=NONE`,
`NIL` or a list would do that too, but have slurmd run the user's login shell for each job (measured: 1 to 2 s, and
its profile's variables).
"""


class NotAskedError(ValueError):
    """A part of a job that Slurm, or the shell, is not to be asked for; the message is the part's name."""


def job_directives(
    name: str | None = None,
    *,
    gres: str | None = None,
    scratch_mib: int | None = None,
    exclude: Sequence[str] = (),
    warning: tuple[str, int] | None = None,
    array: tuple[int, int | None] | None = None,
) -> str:
    """Header lines: the attempt's unique name, never two of it at a time, and what AiiDA has no word for.

    Of an array that would be one element after the other (`singleton` knows no arrays); its fence has to do.

    Args:
        name: `None` for another plugin's job, which has none.
        gres: generic resources on each node, as sbatch(1) wants them.
        scratch_mib: disk space on each node, MiB.
        exclude: nodes that it must not run on.
        warning: the signal that the batch script's own process gets, and how many seconds before its time is over.
        array: how many elements it has, and how many of them may run at a time; they share the files of Slurm's words.
    """
    asked = {
        "job-name": name,
        "dependency": "singleton" if name and not array else None,
        "array": _array(*array) if array else None,
        "open-mode": "append" if array else None,
        "gres": gres,
        "tmp": scratch_mib,
        "exclude": ",".join(exclude),
        "signal": f"B:{warning[0]}@{warning[1]}" if warning else None,
    }
    return "\n".join(f"#SBATCH --{option}={value}" for option, value in asked.items() if value)


def _array(elements: int, at_a_time: int | None) -> str:
    most = f"%{at_a_time}" if at_a_time is not None and at_a_time < elements else ""
    return f"0-{elements - 1}{most}"


def job_name(directives: str) -> str:
    """The name in `job_directives`."""
    return directives.partition("--job-name=")[2].partition("\n")[0]


def name_in_slurm(pk: int, directory: str, directives: str | None) -> str:
    """The name of a calculation's job: its own, or, of another plugin's, the one that the submit command makes."""
    own = job_name(directives or "")
    place = hashlib.sha256(directory.encode() + b"\n").hexdigest()[:16]  # as `pwd | sha256sum` says
    return own or f"aiida-{pk}-{place}"


def header(job: JobTemplate, written: str) -> str:
    """The header that AiiDA wrote for a job, without its name for it where the job has one of its own.

    Where it has none, because it is another plugin's, the submit command makes the name unique.

    Raises:
        NotAskedError: a line is not of the grammar, or asks for the same again.
    """
    for field in _RAW:
        if "\n" in str(job.get(field)):
            raise NotAskedError(field)
    lines = [_UNNAMED.sub(r"#SBATCH --job-name=\1", line) for line in written.split("\n")]
    if sum(line.startswith("#SBATCH --job-name=") for line in lines) > 1:
        lines = [line for line in lines if not line.startswith("#SBATCH --job-name=aiida-")]
    asked: set[str] = set()
    for line in lines:
        option = line.partition("=")[0].removeprefix("#SBATCH --")
        if not re.fullmatch(GRAMMAR, line) or option in asked:
            raise NotAskedError(option if option in _OPTIONS else "custom_scheduler_commands")
        asked.add(option)
    return "\n".join(lines)


def environment(job: JobTemplate) -> None:
    """Look at the variables that the script is to set.

    Raises:
        NotAskedError: a name is none, or values are to be expanded by the shell.
    """
    names = job.job_environment or {}
    if not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        raise NotAskedError("environment_variables")
    if names and job.environment_variables_double_quotes:
        raise NotAskedError("environment_variables_double_quotes")
