"""What four truths about the same jobs contradict each other in: lost, doubled, out of order, stuck, or untrue."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aiida_byoc.contracts.lifecycle import SUCCESSORS, TERMINAL, ExecutionState
from lab.chaos.evidence import ENDED_PROCESS, Evidence
from lab.chaos.load import OK, Job
from lab.chaos.tasks import of_arrays

__all__ = ["Truths", "compare"]

Finding = tuple[str, str, str]
"""Kind, job, evidence."""

FENCED = "75:0"
"""Exit code in Slurm's words of a second copy that found the fence taken."""
FORGOTTEN = {"failed (lost)", "failed (node_fail)"}
"""Ends of a job whose controller forgot it, unless its program came to its own."""
UNKNOWN = "Slurm does not know"
"""Why a job is held whose controller forgot it while it ran: it may end by its record until its walltime and 10 min."""
MOST_SHOWN = 100
"""A page of the product's timeline."""
_NAME = re.compile(r"byoc-(?P<submission>[0-9a-f-]{36})-\d+$")


@dataclass(frozen=True, kw_only=True)
class Truths:
    """What came of the comparison.

    Attributes:
        counts: what is no violation by itself.
        violations: each kind of what must not be → the jobs it was seen in, with evidence.
    """

    counts: Mapping[str, int]
    violations: Mapping[str, list[str]]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, out of order, stuck or untrue."""
        return not any(self.violations.values())

    def table(self) -> str:
        """For people: Markdown, then every violation with its evidence."""
        rows = [
            *self.counts.items(),
            *((kind, len(each)) for kind, each in self.violations.items()),
        ]
        lines = ["| what | jobs |", "|---|---|", *(f"| {kind} | {count} |" for kind, count in rows)]
        told = [f"{kind}: {each}" for kind, found in self.violations.items() for each in found]
        return "\n".join([*lines, *told])


def compare(
    jobs: Collection[Job],
    evidence: Evidence,
    *,
    slurm_forgot: bool = False,
    product_forgot: bool = False,
) -> Truths:
    """Judge the evidence about `jobs`.

    Args:
        slurm_forgot: a controller was killed within seconds of a submission. It forgets jobs that it acknowledged, so a
            job may end as lost, be submitted a second time (the fence in the job admits one), or still be held with the
            reason that Slurm does not know it; held jobs are counted.
        product_forgot: the product lost what it had, and was told again: updates may have come late.
    """
    violations: dict[str, list[str]] = {kind: [] for kind in ("lost", "executed twice")}
    violations |= {kind: [] for kind in ("doubled", "out of order", "stuck", "untrue")}
    rows = {row["submission_id"]: row for row in evidence.ledger}
    waiting = _forgotten(evidence) if slurm_forgot else set()
    found = [
        *_accepted(jobs, evidence),
        *_delivered(evidence, waiting),
        *_ordered(evidence),
        *_ends(jobs, evidence, FORGOTTEN if slurm_forgot else set()),
        *_processes(evidence, waiting),
        *_slurm_jobs(evidence, one_each=not slurm_forgot),
        *_executions(evidence),
        *of_arrays(jobs, evidence),
        *_shown(evidence, in_time=not product_forgot),
    ]
    for kind, subject, told in found:
        name = rows[subject]["job_id"] if subject in rows else subject
        violations[kind].append(f"{name}: {told}")
    return Truths(counts=_counts(jobs, evidence), violations=violations)


def _counts(jobs: Collection[Job], evidence: Evidence) -> dict[str, int]:
    started = Counter(
        evidence.runs[each["submission_id"]][0].count("start")
        for each in evidence.ledger
        if evidence.runs.get(each["submission_id"])
    )
    arrays = [job for job in jobs if job.tasks]
    begun = sum(job.submission_id in evidence.tasks for job in arrays)
    fenced = sum(
        _submission(line) in evidence.events and line.get("ExitCode") == FENCED
        for line in evidence.finished
    )
    ends = Counter(_end(told) for told in evidence.events.values())
    return {
        "submitted": len(jobs),
        "accepted": sum(job.submission_id is not None for job in jobs),
        "executed once": started[1] + begun,
        "never started": len(evidence.ledger) - started.total() - begun,
        "arrays": len(arrays),
        "tasks of arrays": sum(job.tasks for job in arrays),
        "tasks that succeeded, once": sum(
            sum(log.count(OK) for log in logs) == 1
            for of_task in evidence.tasks.values()
            for logs in of_task.values()
        ),
        "second copies that the fence stopped": fenced,
        **{f"ended: {end}": count for end, count in sorted(ends.items())},
        **{f"repairs: {kind}": count for kind, count in sorted(evidence.repairs.items())},
    }


def _accepted(jobs: Collection[Job], evidence: Evidence) -> Iterator[Finding]:
    """Each submission was accepted in the end, and is what the first answer said."""
    ledger = {(row["tenant_id"], row["job_id"]): row["submission_id"] for row in evidence.ledger}
    for job in jobs:
        there = ledger.get((job.tenant_id, job.job_id))
        if job.submission_id is None:
            yield "lost", job.job_id, "no 202 until the end"
        elif there != job.submission_id:
            yield "lost", job.job_id, f"accepted as {job.submission_id}, the ledger has {there}"
        for answer in job.contradictions:
            yield "doubled", job.job_id, f"answered otherwise: {answer}"


def _forgotten(evidence: Evidence) -> set[str]:
    return {
        submission
        for submission, told in evidence.events.items()
        if told[-1]["state"] == "held" and UNKNOWN in told[-1].get("reason", "")
    }


def _delivered(evidence: Evidence, waiting: Collection[str]) -> Iterator[Finding]:
    """Each job ended, and the product acknowledged all of it."""
    for row in evidence.ledger:
        if row["state"] not in TERMINAL and row["submission_id"] not in waiting:
            yield "stuck", row["submission_id"], f"{row['state']}, seq {row['seq']}"
        if row["acked_seq"] != row["latest_seq"] or row["quarantine"]:
            delivered = f"{row['acked_seq']} of {row['latest_seq']} delivered"
            yield "stuck", row["submission_id"], f"{delivered}, {row['quarantine']}"


def _ordered(evidence: Evidence) -> Iterator[Finding]:
    """Events are 1…n, each follows the one before it, the last says what the ledger says."""
    for row in evidence.ledger:
        told = evidence.events.get(row["submission_id"], [])
        seqs = [data["seq"] for data in told]
        if seqs != list(range(1, row["seq"] + 1)):
            yield "out of order", row["submission_id"], f"events {seqs}, job at {row['seq']}"
        states = [ExecutionState(data["state"]) for data in told]
        begins = states[:1] == [ExecutionState.ACCEPTED]
        if not begins or any(after not in SUCCESSORS[before] for before, after in pairwise(states)):
            yield "out of order", row["submission_id"], " → ".join(states)
        if states[-1:] != [row["state"]]:
            yield "out of order", row["submission_id"], f"{row['state']} without its event"


def _ends(
    jobs: Collection[Job], evidence: Evidence, tolerated: Collection[str]
) -> Iterator[Finding]:
    """Each job ended as its program, or whoever cancelled it, decided."""
    for job in jobs:
        told = evidence.events.get(job.submission_id or "", [])
        truthful = {job.expected, *tolerated, *(["cancelled"] if job.cancelled else [])}
        if told and told[-1]["state"] in TERMINAL and _end(told) not in truthful:
            yield "untrue", job.job_id, f"{_end(told)} instead of {job.expected}: {told[-1]}"


def _processes(evidence: Evidence, waiting: Collection[str]) -> Iterator[Finding]:
    """One work chain per submission, one calculation per attempt, all ended."""
    grouped: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in evidence.chains:
        grouped[row["submission_id"], "work chain"].append(row["id"])
    for row in evidence.calculations:
        grouped[row["submission_id"], row["attempt"]].append(row["id"])
    for (submission, what), pks in grouped.items():
        if len(pks) > 1:
            yield "doubled", submission, f"{what}: {pks}"
    for row in [*evidence.chains, *evidence.calculations]:
        if row["state"] not in ENDED_PROCESS and row["submission_id"] not in waiting:
            yield "stuck", row["submission_id"], f"process {row['id']} is {row['state']}"
    for row in evidence.ledger:
        if row["process_pk"] is not None and (row["submission_id"], "work chain") not in grouped:
            yield "lost", row["submission_id"], f"no work chain {row['process_pk']}"


def _slurm_jobs(evidence: Evidence, *, one_each: bool) -> Iterator[Finding]:
    """Not more than one Slurm job per attempt, or per element of its array, none left."""
    by_name = defaultdict(list)
    for line in evidence.finished:
        if _submission(line) in evidence.events:
            job = f"{line.get('JobId')} {line.get('JobState')}"
            by_name[line["Name"], line.get("ArrayTaskId")].append(job)
    for (name, _), ids in by_name.items():
        if len(ids) > 1 and one_each:
            yield "doubled", _submission({"Name": name}), f"Slurm jobs {ids}"
    for name in evidence.queued:
        if _submission({"Name": name}) in evidence.events:
            yield "stuck", _submission({"Name": name}), f"Slurm still has {name}"


def _executions(evidence: Evidence) -> Iterator[Finding]:
    """Started at most once, by what the containers wrote; told as what they came to. Arrays are looked at by task."""
    for row in evidence.ledger:
        if row["submission_id"] in evidence.tasks:
            continue
        logs = evidence.runs.get(row["submission_id"], [])
        if sum(log.count("start") for log in logs) > 1:
            yield "executed twice", row["submission_id"], f"{logs}"
        ended = any("end" in log for log in logs)
        end = _end(evidence.events.get(row["submission_id"], []))
        if row["state"] == "succeeded" and not ended:
            yield "untrue", row["submission_id"], f"succeeded, but the container wrote {logs}"
        if end in FORGOTTEN and ended:
            yield "untrue", row["submission_id"], f"{end}, but the container came to its end"


def _shown(evidence: Evidence, *, in_time: bool) -> Iterator[Finding]:
    """The timeline is the events, the projection is the newest, nothing came after what followed it."""
    for row in evidence.ledger:
        told = [(data["seq"], data["state"]) for data in evidence.events[row["submission_id"]]]
        if row["job_id"] not in evidence.shown:
            yield "lost", row["submission_id"], f"{len(told)} events, the product has none"
            continue
        projection, timeline = evidence.shown[row["job_id"]]
        newest = (projection["seq"], projection["execution_state"])
        if newest != told[-1]:
            yield "out of order", row["submission_id"], f"projection {newest}, not {told[-1]}"
        known = sorted((entry["seq"], entry["execution_state"]) for entry in timeline)
        if known != told[:MOST_SHOWN]:
            yield "out of order", row["submission_id"], f"timeline {known}, not {told}"
        late = [entry["seq"] for entry in timeline if entry["outcome"] == "superseded"]
        if late and in_time:
            yield "out of order", row["submission_id"], f"{late} came late"


def _end(told: list[dict[str, Any]]) -> str:
    last = told[-1] if told else {}
    code = last.get("error", {}).get("code")
    return f"{last.get('state')} ({code})" if code else str(last.get("state"))


def _submission(line: Mapping[str, str]) -> str:
    name = _NAME.match(line.get("Name", ""))
    return name["submission"] if name else ""
