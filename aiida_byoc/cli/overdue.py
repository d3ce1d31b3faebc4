"""Jobs that are longer in their state than expected: which, why, and the command that helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg

from aiida_byoc.cli.job_facts import Case, Situation, Stream, cases, streams

__all__ = ["EXPECTED", "Finding", "overdue"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

EXPECTED: Mapping[str, int] = {
    "not launched": _MINUTE,  # the launcher looks every second
    "no room": _HOUR,  # waiting for others is what limits are for
    "no image": 15 * _MINUTE,  # failures end the job after ten
    "no input": 15 * _MINUTE,  # the same
    "no earlier output": _DAY,  # the earlier job is named for itself before
    "not in Slurm": 15
    * _MINUTE,  # an image to unpack, files to upload, AiiDA's own tries of sbatch
    "in Slurm's queue": _DAY,
    "in Slurm's queue for a reason that time does not cure": 10 * _MINUTE,
    "beyond its walltime": 15
    * _MINUTE,  # Slurm's KillWait and OverTimeLimit, then a look at every witness
    "held": 15 * _MINUTE,  # doubts and pauses are looked after by the node first
    "not cancelled": 5 * _MINUTE,
    "without a worker": _MINUTE,  # a lease is 15 s, a worker is up again in ten
    "undelivered": 5 * _MINUTE,
    "needs a person": 0,
}
"""How long a job may be in such a condition before it is worth anybody's attention, in seconds."""

_HOPELESS = {
    "AccountNotAllowed",
    "AssocMaxJobsLimit",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "JobHeldUser",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
}
"""Reasons by which Slurm (squeue(1)) says that somebody must act."""

_BY_AIIDA = "Pausing after failed transport task"


@dataclass(frozen=True)
class Finding:
    """One job that needs attention; `age` is in seconds, `state` as it was told last."""

    tenant_id: str
    job_id: str
    state: str
    age: int
    cause: str
    command: str


Symptom = tuple[str, str, str]
"""Key of `EXPECTED`, cause, command."""


def overdue(connection: psycopg.Connection, situation: Situation) -> list[Finding]:
    """Every job that needs attention, the one accepted first coming first, then what is not delivered."""
    stuck = [_stuck(case) for case in cases(connection, situation)]
    untold = [_untold(stream, situation) for stream in streams(connection)]
    return [finding for finding in (*stuck, *untold) if finding is not None]


def _stuck(case: Case) -> Finding | None:
    """The first symptom that lasts longer than expected."""
    job = case.job
    for symptom in _SYMPTOMS:
        seen = symptom(case)
        if seen is None:
            continue
        condition, cause, command = seen
        age = job.cancel_age if condition == "not cancelled" else job.age
        allowed = EXPECTED[condition]
        if condition == "beyond its walltime":
            allowed += job.walltime or 0
        if age is not None and age >= allowed:
            return Finding(job.tenant_id, job.job_id, job.state, age, cause, command)
    return None


def _untold(stream: Stream, situation: Situation) -> Finding | None:
    age = stream.age or 0
    if stream.code is not None:
        cause = (
            f"the product refused an event, {stream.waiting} wait: {stream.code}: {stream.message}"
        )
        command = "verdi data byoc events quarantine list"
    elif age < EXPECTED["undelivered"]:
        return None
    else:
        agent = "the relay says nothing" if situation.has_agent else "the agent is not running"
        cause = f"{stream.waiting} event(s) undelivered: {situation.trouble or agent}"
        command = "verdi data byoc status" if situation.has_agent else "verdi data byoc agent run"
    return Finding(stream.tenant_id, stream.job_id, stream.state, age, cause, command)


def _lost_its_node(case: Case) -> Symptom | None:
    if case.nodes is None or case.nodes.chain_state is not None:
        return None
    pk = case.nodes.process_pk
    return "needs a person", f"its work chain <{pk}> is no longer in AiiDA", f"verdi node show {pk}"


def _not_cancelled(case: Case) -> Symptom | None:
    if case.job.cancel_age is None:
        return None
    name = f"byoc-{case.job.submission_id}-{case.job.attempt}"
    why = f": {case.job.reason}" if case.job.reason else ""
    cause = f"cancelled, but Slurm has not confirmed that it is gone{why}"
    return "not cancelled", cause, f"squeue --states=all --name={name}"


def _paused(case: Case) -> Symptom | None:
    nodes, job = case.nodes, case.job
    if nodes is None:
        return None
    if nodes.is_chain_paused:
        pk, said = case.processes[0], nodes.chain_status
    elif nodes.paused_below is not None:
        pk, said = nodes.paused_below, nodes.below_status
    elif nodes.is_attempt_paused:
        pk, said = case.processes[-1], nodes.attempt_status
    else:
        return None
    said = said or "no reason"
    command = f"verdi process play {pk}"
    if not said.startswith(_BY_AIIDA):
        return "held", f"paused by an operator: {said}", command
    if job.plays >= case.situation.max_plays:
        return "needs a person", f"{said}; played again {job.plays} times in vain", command
    return "held", f"{said}; it is played again by itself, so far {job.plays} times", command


def _without_a_worker(case: Case) -> Symptom | None:
    if not case.situation.has_tasks:
        return None
    for pk in case.processes:
        if pk not in case.tasks:
            cause = f"process {pk} has no task: no worker will take it up"
            return (
                "without a worker",
                cause,
                "verdi daemon stop; verdi process repair; verdi daemon start",
            )
        if case.tasks[pk] is not None:
            cause = f"the task of process {pk} {case.tasks[pk]}"
            return "without a worker", cause, "verdi daemon start; verdi daemon logshow"
    return None


def _no_image(case: Case) -> Symptom | None:
    job = case.job
    if job.pull is None or not case.situation.has_agent:
        return None
    command = f"verdi data byoc images add docker://{job.pull}"
    return "no image", f"its image is being pulled: {job.pull_message}", command


def _no_input(case: Case) -> Symptom | None:
    job = case.job
    if job.earlier is not None:
        command = f"verdi data byoc jobs show {job.earlier} --tenant {job.tenant_id}"
        return "no earlier output", f"it waits for the job {job.earlier}", command
    if job.fetch is None or not case.situation.has_agent:
        return None
    return "no input", f"an input is being fetched: {job.fetch}", "grep input_ in the agent's log"


def _not_launched(case: Case) -> Symptom | None:
    job, situation = case.job, case.situation
    if job.state != "accepted" or _no_image(case) or _no_input(case):
        return None
    if not situation.has_agent:
        return "not launched", "the agent is not running", "verdi data byoc agent run"
    if job.launch_failures:
        cause = f"it could not be launched, {job.launch_failures} times; the agent's log says why"
        return (
            "not launched",
            cause,
            f"verdi data byoc jobs show {job.job_id} --tenant {job.tenant_id}",
        )
    if no_room := _no_room(case):
        return "no room", *no_room
    return (
        "not launched",
        "not launched although there is room; the agent's log says why",
        "verdi data byoc status",
    )


def _no_room(case: Case) -> tuple[str, str] | None:
    """Which of the policy's bounds the launcher keeps, and what raises it."""
    job, limits = case.job, case.situation.limits
    of_tenant = case.situation.quotas.of(job.tenant_id).running or limits.active_jobs_per_tenant
    bounds = (
        (job.active, limits.active_jobs, "jobs are under way", "active_jobs in [limits]"),
        (job.active, limits.slurm_jobs, "jobs may be in Slurm", "slurm_jobs in [limits]"),
        (
            job.active_of_tenant,
            of_tenant,
            "jobs of the tenant are under way",
            "running in [quotas] (or active_jobs_per_tenant in [limits])",
        ),
    )
    for there, most, what, key in bounds:
        if most is not None and there >= most:
            return f"{there} {what}, the policy allows {most}", f"raise {key} of policy.toml"
    return None


def _held(case: Case) -> Symptom | None:
    if case.job.state != "held":
        return None
    pk = case.nodes.process_pk if case.nodes else 0
    return "held", case.job.reason or "no reason was told", f"verdi process report {pk}"


def _in_slurm(case: Case) -> Symptom | None:
    job = case.job
    command = f"scontrol show job {job.slurm_job}"
    if job.state == "queued" and job.slurm_job is None and job.reason:
        return "in Slurm's queue", job.reason, "set slurm_jobs in [limits] of policy.toml"
    if job.state == "queued":
        hopeless = job.wait_reason in _HOPELESS
        condition = (
            "in Slurm's queue for a reason that time does not cure"
            if hopeless
            else "in Slurm's queue"
        )
        return condition, f"Slurm lets it wait: {job.wait_reason or 'no reason told'}", command
    if job.state == "running":
        return "beyond its walltime", f"its walltime of {job.walltime} s has passed", command
    return None


def _not_in_slurm(case: Case) -> Symptom | None:
    if case.job.state != "launched" or case.nodes is None:
        return None
    said = case.nodes.attempt_status or case.nodes.chain_status or "AiiDA does not say why"
    return (
        "not in Slurm",
        f"not in Slurm yet: {said}",
        f"verdi process report {case.nodes.process_pk}",
    )


_SYMPTOMS: tuple[Callable[[Case], Symptom | None], ...] = (
    _lost_its_node,
    _not_cancelled,
    _paused,
    _without_a_worker,
    _no_image,
    _no_input,
    _not_launched,
    _held,
    _in_slurm,
    _not_in_slurm,
)
"""The nearest cause comes first."""
