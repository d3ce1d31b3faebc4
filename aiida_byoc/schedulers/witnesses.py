"""What Slurm and the jobs themselves say about attempts, asked in one command on the cluster.

Slurm answers by the attempt's name, which is unique, so a job that re-uses an id is never taken for ours; the job
speaks through its directory: the fence that it makes first and the completion record that it writes last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from aiida_byoc.runtimes.in_job import (
    ARRAY_COUNT,
    ELEMENTS,
    ENDED,
    FENCE,
    OWNER,
    RECORD,
    SPECIFICATION,
)
from aiida_byoc.schedulers.options import CLIENT

__all__ = [
    "ENDED_STATES",
    "FUNCTIONS",
    "NODE",
    "PATIENCE",
    "SUBMITTING",
    "Evidence",
    "close_command",
    "evidence",
    "look_command",
    "state_of_both",
]

PATIENCE = 20
"""Seconds that one question to Slurm may take; its own limit is 9 to 10 s for most, none for some."""

ENDED_STATES = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""Final states (squeue(1), JOB STATE CODES). A state that is not known here counts as going on."""

NODE = "node"
"""Owner of a fence that the node took itself: no copy of the attempt can ever run."""

SUBMITTING = "byoc_submit.lock"
"""File in the job's directory: who holds its lock (flock(1)) is submitting the attempt."""

FUNCTIONS = f"""\
queued() {{
  said=$(timeout {PATIENCE} {CLIENT} squeue --noheader --me --states=all --format='%F %T %j %r' --name="$name") &&
  sed '/^[^ ]* FAILED [^ ]* BadConstraints$/d; s/^\\([^ ]* [^ ]* [^ ]*\\) .*/\\1/' <<< "$said" | awk '!told[$0]++'
}}
accounted() {{
  since=$(stat -c %Y {SPECIFICATION}) && since=$(date -d "@$((since - 86400))" +%FT%T) &&
  said=$(timeout {PATIENCE} {CLIENT} sacct --noheader --parsable2 --allocations --user="$(id -un)" --name="$name" \
--starttime="$since" --format=JobID,State,NodeList) &&
  sed '/|FAILED|None assigned$/d; s/|[^|]*$//; s/^\\([0-9]*\\)_[^|]*|/\\1|/' <<< "$said"
}}
"""
"""Shell: all jobs called `$name` (or one of `a,b,c`), one a line: `<id> <state> <name>` from the controller,
`<id>|<state>` from accounting. An array's elements have its id; those in one state share a line of the controller's.

A job that `sbatch` was refused, since no node has what it asks for, both show as failed although there never was one
(measured, 22.05): it is left out.

The controller forgets a job MinJobAge seconds after its end. Accounting looks back to the day before the attempt's
directory was made, and only supplements: a site may have none, and what a killed controller has forgotten it shows as
pending or running for ever (`sacctmgr show runawayjobs`).
"""

# Slurm is asked before a directory is read: a job may end in between, and its record comes before its end.
# `ls` makes a client of NFS ask the server anew.
_LOOK = """\
{functions}
look() (
  echo "look $1"
  name=$1
  cd "$2" && ls > /dev/null && found=1
  if [ -n "$answers" ] && [[ $'\\n'$jobs$'\\n' != *" $name"$'\\n'* ]]; then
    while read -r id state rest; do [ -z "$id" ] || echo "account $id $state $name"; done \\
      <<< "$(accounted 2> /dev/null | tr '|' ' ')"
  fi
  if [ -n "$found" ]; then
    echo directory
    if [ -d {fence} ]; then echo "fence $(cat {fence}/{owner} 2> /dev/null)"; fi
    if [ -e {record} ]; then echo record; fi
    if [ -e {count} ]; then
      echo array
      ended=$(find {elements} -mindepth 2 -maxdepth 2 -name {ended} 2> /dev/null | wc -l)
      [ "$ended" -lt "$(cat {count})" ] || echo record
    fi
  fi
)
name={names}
if jobs=$(queued); then
  answers=1
  echo controller
  while read -r job; do [ -z "$job" ] || echo "job $job"; done <<< "$jobs"
fi
{looks}
echo end
"""

_ID = re.compile(r"[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found about an attempt.

    Attributes:
        controller: whether Slurm's controller answered.
        jobs: every job of the attempt's name that the controller knows, by id, and its state in Slurm's long words.
            Normally one; two after an `sbatch` that reported failure and was carried out.
        accounts: likewise from accounting, asked only when the controller knows none. A job that is not over by them
            is one that the controller has forgotten, or whose end accounting has not heard of yet.
        directory: whether the job's directory is there.
        fence: who took the fence: a Slurm id, `NODE`, empty while its owner is not written yet, `None`: nobody.
        record: whether the completion record is there; of an array, whether each of its elements has left its own.
        is_array: whether it is one. Slurm knows it as long as it knows any of its elements.
    """

    controller: bool
    jobs: Mapping[str, str]
    accounts: Mapping[str, str]
    directory: bool
    fence: str | None
    record: bool
    is_array: bool = False


def state_of_both(one: str, other: str) -> str:
    """The state of an array whose elements have these: it goes on while one of them does, and completes with all."""
    for going_on in (lambda state: state not in ENDED_STATES, lambda state: state != "COMPLETED"):
        if going_on(one) or going_on(other):
            return one if going_on(one) else other
    return one


def look_command(jobs: Mapping[str, str]) -> str:
    """The command that looks at jobs, given as name → directory, with one question to Slurm for all.

    `evidence` reads its output.
    """
    looks = [f"look {shlex.quote(name)} {shlex.quote(place)}" for name, place in jobs.items()]
    return _LOOK.format(
        functions=FUNCTIONS,
        names=shlex.quote(",".join(jobs)),
        looks="\n".join(looks),
        fence=FENCE,
        owner=OWNER,
        record=RECORD,
        count=ARRAY_COUNT,
        elements=ELEMENTS,
        ended=ENDED,
    )


def close_command(directory: str) -> str:
    """The command that takes the fence for the node; it fails when somebody has it, or is submitting the attempt.

    A submission that is under way ends first, and Slurm knows its job then; a later one finds the fence.
    """
    take = f"flock --wait {PATIENCE} {SUBMITTING} mkdir {FENCE}"
    return f"cd {shlex.quote(directory)} && {take} && echo {NODE} > {FENCE}/{OWNER}"


def evidence(output: str) -> dict[str, Evidence]:
    """Read what `look_command` printed, by job name.

    Raises:
        ValueError: the output broke off.
    """
    lines = [line.split() for line in output.splitlines() if line.strip()]
    if not lines or lines[-1] != ["end"]:
        raise ValueError("the answer from the cluster broke off")
    known: dict[str, dict[str, dict[str, str]]] = {"job": {}, "account": {}}
    seen: dict[str, dict[str, str]] = {}
    facts: dict[str, str] = {}
    for word, *rest in lines:
        if word == "look":
            facts = seen.setdefault(rest[0], {})
        elif word in known and len(rest) > 2 and _ID.fullmatch(rest[0]):
            of_name = known[word].setdefault(rest[-1], {})
            of_name[rest[0]] = state_of_both(of_name.get(rest[0], rest[1]), rest[1])
        else:
            facts[word] = rest[0] if rest else ""
    return {
        name: Evidence(
            controller=["controller"] in lines,
            jobs=known["job"].get(name, {}),
            accounts=known["account"].get(name, {}),
            directory="directory" in facts,
            fence=facts.get("fence"),
            record="record" in facts,
            is_array="array" in facts,
        )
        for name, facts in seen.items()
    }
