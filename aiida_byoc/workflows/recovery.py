"""What the next attempt of a job asks for: a pure function of the command, the policy's decision and what ended before.

All of it is in provenance, so whoever computes it, before or after a crash, gets the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts.commands import ArrayWorkload, SubmitJobCommand
from aiida_byoc.contracts.events import one_line
from aiida_byoc.contracts.failures import FAILURES

__all__ = ["Ask", "Ended", "ask", "refusal"]

_GOES_ON = frozenset({"timeout", "preempted", "requeued"})
"""What an attempt can go on from, whether or not the program promises checkpoints."""
_NEVER_BEGAN = "launch_refused"
"""What follows goes on from where this one would have."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that is over.

    Attributes:
        code: how it ended (`aiida_byoc.contracts.failures`).
        message: the same for people.
        nodes: that it ran on, and `usable`: those of its partition that could be used then; known when a node failed.
    """

    code: str
    message: str
    nodes: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What an attempt asks for beyond its command.

    Attributes:
        number: from 1.
        memory_mib: per node.
        exclude: nodes that it must not run on.
        goes_on_from: attempts whose files it begins with: the newest of them whose program was begun. Empty: it starts
            anew.
        recovery: why there is one, in the words of the contract; `None` for the first.
    """

    number: int
    memory_mib: int
    exclude: tuple[str, ...] = ()
    goes_on_from: tuple[int, ...] = ()
    recovery: dict[str, Any] | None = None


def refusal(command: SubmitJobCommand, placement: Placement, ended: Sequence[Ended]) -> str | None:
    """Why there is no attempt after these, as a clause for people, or "" where there is nothing to say; else `None`."""
    policy, last, rules = command.retry_policy, ended[-1], placement.recovery
    on = FAILURES[last.code].on
    requeues = sum(FAILURES[each.code].on == "requeued" for each in ended)
    if on == "requeued":
        most = rules.requeues if rules else 0
        return f"the node's policy allows {most} requeues" if requeues > most else None
    if on not in policy.on:
        return ""
    if len(ended) - requeues >= policy.max_attempts:
        return f"this was the last of {policy.max_attempts} attempts"
    memory = _memory(command, placement, ended)
    if last.code == "oom" and rules and memory == _memory(command, placement, ended[:-1]):
        return f"no further attempt, since its {memory} MiB are at the node's ceiling"
    return None


def ask(command: SubmitJobCommand, placement: Placement, ended: Sequence[Ended]) -> Ask:
    """What the attempt after those that ended, in their order, asks for."""
    memory = _memory(command, placement, ended)
    if not ended:
        return Ask(number=1, memory_mib=memory)
    last, before = ended[-1], _memory(command, placement, ended[:-1])
    exclude = _excluded(command, ended)
    is_array = isinstance(command.workload, ArrayWorkload)
    goes_on_from = tuple(range(len(ended), 0, -1)) if is_array else _line(command, ended)
    actions = []
    if memory != before:
        actions.append(f"memory_mib {before} \N{RIGHTWARDS ARROW} {memory}")
    if FAILURES[last.code].on == "node_fail":
        actions.append(f"not on {', '.join(exclude)}" if exclude else "no other node can be used")
    goes_on = "runs the tasks that have not succeeded" if is_array else "goes on with the files"
    actions.append(goes_on if goes_on_from else "starts anew")
    return Ask(
        number=len(ended) + 1,
        memory_mib=memory,
        exclude=exclude,
        goes_on_from=goes_on_from,
        recovery={
            "attempt": len(ended),
            "code": last.code,
            "message": one_line(last.message),
            "action": one_line("; ".join(actions)),
        },
    )


def _memory(command: SubmitJobCommand, placement: Placement, ended: Sequence[Ended]) -> int:
    memory, rules = command.resource_shape.memory_mib, placement.recovery
    if rules is not None:
        for _ in [each for each in ended if each.code == "oom"]:
            more = math.ceil(memory * rules.memory_factor)
            memory = max(memory, min(more, rules.memory_ceiling_mib or memory))
    return memory


def _excluded(command: SubmitJobCommand, ended: Sequence[Ended]) -> tuple[str, ...]:
    """The nodes that failed, unless too few others were left."""
    failures = [each for each in ended if each.nodes]
    failed = {
        node
        for each in failures
        for node in (set(each.nodes) - set(each.usable) or set(each.nodes))
    }
    usable = set(failures[-1].usable) if failures else set()
    enough = len(usable - failed) >= command.resource_shape.nodes
    return tuple(sorted(failed)) if enough else ()


def _line(command: SubmitJobCommand, ended: Sequence[Ended]) -> tuple[int, ...]:
    """The attempts, newest first, since the last one that started anew."""
    line = []
    for number in range(len(ended), 0, -1):
        code = ended[number - 1].code
        if code == _NEVER_BEGAN:
            continue
        if command.container.checkpoint is None and code not in _GOES_ON:
            break
        line.append(number)
    return tuple(line)
