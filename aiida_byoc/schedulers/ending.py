"""What Slurm says about one job once it has ended: asked in one command, read once, kept in provenance.

The controller knows a job for MinJobAge seconds, accounting (where a site has it) for ever; accounting alone knows who
cancelled a job. Of an array's elements the one with the gravest end is told; both are asked for them, since those that
ended first may be known to accounting alone. An element that the node closed, since nobody wanted its tasks, does not
count (its `ended` is empty); where that leaves none that waits, Slurm forgets their numbers (measured, 22.05), and they
are told by all the others having begun. Of a failed node's job is also asked where it ran and which nodes of its
partition can be used: what the next attempt avoids follows from what this one left.

A compute node may refuse to start a job: its Prolog fails, or it still has a job of that number, which the controller
forgot and gave again. slurmd then wants the job put back into the queue, which `--no-requeue` forbids, and cancels it
(measured, 22.05); nothing has opened the job's stdout. So it is with a job that somebody cancels while it waits for a
Prolog, but a node that refuses is drained at once, with its reason; and where there is no Prolog nothing waits so. The
exit code says nothing here: it may be that of the job that had the number. An array's elements share their stdout, and
make a directory each, a moment later: there the node's word is needed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiida_byoc.runtimes.in_job import ARRAY_COUNT, ELEMENTS, ENDED
from aiida_byoc.schedulers.options import CLIENT
from aiida_byoc.schedulers.witnesses import PATIENCE

__all__ = ["Ending", "ending", "ending_command"]

_MOST_NODES = 1024
"""Nobody excludes that many; so many usable ones are enough."""

_UNNUMBERED = 2**32 - 2
"""`ArrayTaskId` of a record that stands for several elements, none of which waits any more (slurm.h, NO_VAL)."""

_ASK = """\
known() {{
  timeout {patience} {client} scontrol --oneliner show job {job} 2> /dev/null | grep -E {shown}"$(id -un)[(]"
}}
accounted() {{
  timeout {patience} {client} sacct --noheader --parsable2 --allocations \
--format=State,ExitCode,NodeList,Partition,JobID,JobName --jobs={job} --name={name} --user="$(id -un)"
}}
gravest() {{
  for state in OUT_OF_MEMORY NODE_FAIL BOOT_FAIL PREEMPTED TIMEOUT DEADLINE CANCELLED FAILED; do
    grep -E -m 1 "(^|JobState=)$state[ |]" <<< "$said" && return
  done
  head -n 1 <<< "$said"
}}
unclosed() {{
  local place number line element others rest= closed=()
  place=${{said##* StdOut=}} place=${{place%% [A-Z]*=*}} place=${{place%/*}}
  for number in $(cd "$place/{elements}" && find . -mindepth 2 -maxdepth 2 -name {ended} -empty); do
    number=${{number%/*}}
    closed[${{number#./}}]=1
  done 2> /dev/null
  [ ${{#closed[@]}} != 0 ] || {{ echo "$said"; return; }}
  [ "$(ls "$place/{elements}" | wc -l)" -lt "$(cat "$place/{count}")" ] || rest=1
  others=$(while IFS= read -r line; do
    element=${{line##*|{job}_}} element=${{element%%|*}}
    [[ $line != *' ArrayTaskId='* ]] || {{ element=${{line##* ArrayTaskId=}}; element=${{element%% *}}; }}
    case $element in
      {unnumbered} | *[!0-9]*) [[ $rest && $line == *CANCELLED* ]] ;;
      *) [[ ${{closed[$element]}} ]] ;;
    esac || echo "$line"
  done <<< "$said")
  echo "${{others:-$said}}"
}}
said=$(known) || said=$(accounted) || exit 1
[ -n "$said" ] || exit 1
all=
if [[ $said == *' ArrayTaskId='* ]]; then
  said+=$'\\n'$(accounted 2> /dev/null)
  said=$(unclosed)
  all=$said
fi
said=$(gravest)
echo "$said"
case $said in
  *' JobState=CANCELLED '*)
    grep '^CANCELLED ' <<< "${{all:-$(accounted 2> /dev/null)}}"
    host=${{said##* BatchHost=}} output=${{said##* StdOut=}} output=${{output%% [A-Z]*=*}}
    directory=${{output%/*}} element=${{said##* ArrayTaskId=}}
    [[ $element == "$said" ]] || output=$directory/{elements}/${{element%% *}}
    if [[ $host != "$said" && -d $directory && ! -e $output ]]; then
      echo unlaunched
      timeout {patience} {client} scontrol show node "${{host%% *}}" | sed -n 's/^ *Reason=/drained /p'
      timeout {patience} {client} scontrol show config | sed -n -E 's/^(Prolog[A-Za-z]*|SlurmdUser) *= /set \\1 /p'
    fi ;;
  *' JobState=NODE_FAIL '* | *' JobState=BOOT_FAIL '* | NODE_FAIL'|'* | BOOT_FAIL'|'*)
    nodes=${{said##* NodeList=}} partition=${{said##* Partition=}}
    [[ $said == *' JobState='* ]] || IFS='|' read -r _ _ nodes partition _ <<< "$said"
    [[ $nodes == [Nn]one* ]] || timeout {patience} {client} scontrol show hostnames "${{nodes%% *}}" \
| head -n {most} | sed 's/^/ran /'
    timeout {patience} {client} sinfo --noheader --responding --Node --partition="${{partition%% *}}" \
--states=idle,mixed,allocated,completing,planned --format=%N | sort -u | head -n {most} | sed 's/^/usable /' ;;
esac
exit 0
"""

_SHOWN = re.compile(
    r"(?:^|\s)(JobState|Reason|Restarts|ExitCode|StartTime|EndTime|ArrayTaskId)=(\S+)"
)
_ACCOUNTED = re.compile(r"^([A-Z_]+)(?: by (\d+))?\|(?:(\d+):(\d+))?(?:\||$)", re.MULTILINE)
_NODE = re.compile(r"^(ran|usable) ([\w.-]+)$", re.MULTILINE)
_UNLAUNCHED = re.compile(r"^unlaunched$", re.MULTILINE)
_DRAINED = re.compile(r"^drained (?:Duplicate jobid|Prolog error) \[\S*@(\S+)\]$", re.MULTILINE)
"""When, and why, Slurm drains a node that refuses a job."""
_SETTING = re.compile(r"^set (\w+) (.*)$", re.MULTILINE)
_PROLOGS = ("Prolog", "PrologSlurmctld", "PrologFlags")
_AT_ONCE = timedelta(seconds=10)
_LAUNCH = timedelta(seconds=1)
"""A node refuses a job within a moment, which may begin in one second and end in the next: Slurm shows no fractions."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a job ended, in the words of Slurm.

    Attributes:
        state: the final state (squeue(1), JOB STATE CODES); `None` when Slurm does not say.
        exit: the batch script's exit status. Accounting writes 128 + n as n (measured, 22.05).
        signal: what killed it; 53 is Slurm's own word for a script that could not be started.
        reason: scontrol's `Reason`; empty when only accounting knows the job.
        restarts: how often Slurm put it back into the queue.
        cancelled_by: numeric user id, from accounting.
        refused: Slurm itself cancelled it, since the compute node did not start it.
        nodes: where it ran, and `usable`: the nodes of its partition that could be used then; known when a node
            failed.
    """

    state: str | None = None
    exit: int = 0
    signal: int = 0
    reason: str = ""
    restarts: int = 0
    cancelled_by: str | None = None
    refused: bool = False
    nodes: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For messages."""
        if self.state is None:
            return "Slurm does not say how it ended"
        known = [f"Slurm says {self.state}"]
        if self.exit or self.signal:
            known.append(f"exit {self.exit}:{self.signal}")
        if self.reason not in {"", "None"}:
            known.append(self.reason)
        return ", ".join(known)


def ending_command(job: str, name: str) -> str:
    """The command that asks; `ending` reads its output. A job of another name or user is not ours."""
    return _ASK.format(
        patience=PATIENCE,
        client=CLIENT,
        job=job,
        name=shlex.quote(name),
        shown=shlex.quote(
            f"^JobId=({job}|[0-9]+ ArrayJobId={job} ArrayTaskId=[^ ]+( ArrayTaskThrottle=[0-9]+)?)"
            f" JobName={name} UserId="
        ),
        elements=ELEMENTS,
        ended=ENDED,
        count=ARRAY_COUNT,
        unnumbered=_UNNUMBERED,
        most=_MOST_NODES,
    )


def ending(text: str) -> Ending:
    """Read what the command printed, whatever it is."""
    shown: dict[str, str] = {}
    for field, value in _SHOWN.findall(text):
        shown.setdefault(field, value)
    accounted = _ACCOUNTED.search(text)
    state = shown.get("JobState")
    status, _, signal = shown.get("ExitCode", "").partition(":")
    if state is None and accounted is not None:
        state, status, signal = accounted[1], accounted[3] or "", accounted[4] or ""
    cancelled_by = accounted[2] if accounted is not None else None
    found = _NODE.findall(text)
    return Ending(
        state=state,
        exit=_number(status),
        signal=_number(signal),
        reason=shown.get("Reason", ""),
        restarts=_number(shown.get("Restarts", "")),
        cancelled_by=cancelled_by,
        refused=_refused(text, shown, cancelled_by),
        nodes=tuple(node for what, node in found if what == "ran"),
        usable=tuple(node for what, node in found if what == "usable"),
    )


def _refused(text: str, shown: Mapping[str, str], cancelled_by: str | None) -> bool:
    """Whether a job that was cancelled before it began was refused by its node."""
    if shown.get("JobState") != "CANCELLED" or not _UNLAUNCHED.search(text):
        return False
    settings = dict(_SETTING.findall(text))
    if cancelled_by is not None and f"({cancelled_by})" not in settings.get("SlurmdUser", ""):
        return False
    began, ended = shown.get("StartTime", ""), shown.get("EndTime", "")
    drained = _DRAINED.search(text)
    if drained is not None and _apart(drained[1], ended) <= _AT_ONCE:
        return True
    if "ArrayTaskId" in shown:
        return False
    at_once = _apart(began, ended) <= _LAUNCH
    return at_once and all(settings.get(name) == "(null)" for name in _PROLOGS)


def _apart(one: str, other: str) -> timedelta:
    try:
        return abs(datetime.fromisoformat(one) - datetime.fromisoformat(other))
    except (TypeError, ValueError):
        return timedelta.max


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
