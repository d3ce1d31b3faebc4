"""What Slurm says about one job once it has ended: asked in one command, read once, kept in provenance.

The controller knows a job for MinJobAge seconds, accounting (where a site has it) for ever; accounting alone knows who
cancelled a job. Of an array's elements the one with the gravest end is told. Of a failed node's job is also asked where
it ran and which nodes of its partition can be used: what the next attempt avoids follows from what this one left.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from aiida_byoc.schedulers.options import CLIENT
from aiida_byoc.schedulers.witnesses import PATIENCE

__all__ = ["Ending", "ending", "ending_command"]

_MOST_NODES = 1024
"""Nobody excludes that many; so many usable ones are enough."""

_ASK = """\
known() {{
  timeout {patience} {client} scontrol --oneliner show job {job} 2> /dev/null | grep -E {shown}"$(id -un)[(]"
}}
accounted() {{
  timeout {patience} {client} sacct --noheader --parsable2 --allocations --format=State,ExitCode,NodeList \
--jobs={job} --name={name} --user="$(id -un)"
}}
gravest() {{
  for state in OUT_OF_MEMORY NODE_FAIL BOOT_FAIL PREEMPTED TIMEOUT DEADLINE CANCELLED FAILED; do
    grep -E -m 1 "(^|JobState=)$state[ |]" <<< "$said" && return
  done
  head -n 1 <<< "$said"
}}
said=$(known) || said=$(accounted) || exit 1
said=$(gravest)
echo "$said"
case $said in
  *' JobState=CANCELLED '*) accounted 2> /dev/null ;;
  *' JobState=NODE_FAIL '* | *' JobState=BOOT_FAIL '*)
    nodes=${{said##* NodeList=}} partition=${{said##* Partition=}}
    timeout {patience} {client} scontrol show hostnames "${{nodes%% *}}" | head -n {most} | sed 's/^/ran /'
    timeout {patience} {client} sinfo --noheader --responding --Node --partition="${{partition%% *}}" \
--states=idle,mixed,allocated,completing,planned --format=%N | sort -u | head -n {most} | sed 's/^/usable /' ;;
esac
exit 0
"""

_SHOWN = re.compile(r"(?:^|\s)(JobState|Reason|Restarts|ExitCode)=(\S+)")
_ACCOUNTED = re.compile(r"^([A-Z_]+)(?: by (\d+))?\|(?:(\d+):(\d+))?(?:\||$)", re.MULTILINE)
_NODE = re.compile(r"^(ran|usable) ([\w.-]+)$", re.MULTILINE)


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
        nodes: where it ran, and `usable`: the nodes of its partition that could be used then; known when a node
            failed.
    """

    state: str | None = None
    exit: int = 0
    signal: int = 0
    reason: str = ""
    restarts: int = 0
    cancelled_by: str | None = None
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
    found = _NODE.findall(text)
    return Ending(
        state=state,
        exit=_number(status),
        signal=_number(signal),
        reason=shown.get("Reason", ""),
        restarts=_number(shown.get("Restarts", "")),
        cancelled_by=accounted[2] if accounted is not None else None,
        nodes=tuple(node for what, node in found if what == "ran"),
        usable=tuple(node for what, node in found if what == "usable"),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
