"""A product's backend: it submits jobs under keys of their own, and repeats whatever it got no answer to."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["OK", "RUNS", "Job", "Load"]

RUNS = "runs"
"""File in the container's `/work` to which each execution appends."""
OK = "ok"
"""What a task of an array appends when it has succeeded."""

_ANSWER_SECONDS = 20.0
_AGAIN_SECONDS = 0.5


@dataclass
class Job:
    """One job, and what its submitter was told.

    Attributes:
        expected: how it ends unless it is cancelled, `<state>` or `<state> (<error code>)`.
        failing: the tasks of an array that fail, by their numbers.
        withdrawn: the tasks of an array that are cancelled instead of the job; they may have ended before.
        cancel_after: seconds from the acceptance to the request to cancel, unless `cancel_now` is set before.
        contradictions: answers to the same key that differ from the first.
    """

    tenant: int
    tenant_id: str
    command: dict[str, Any]
    expected: str
    cancel_after: float | None = None
    failing: frozenset[int] = frozenset()
    withdrawn: range = range(0)
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    submission_id: str | None = None
    cancelled: bool = False
    contradictions: list[Any] = field(default_factory=list)
    cancel_now: threading.Event = field(default_factory=threading.Event)

    @property
    def tasks(self) -> int:
        """How many tasks the array has; 0 where the job is none."""
        return int(self.command.get("workload", {}).get("tasks", {}).get("count", 0))

    @property
    def job_id(self) -> str:
        """The product's name for it."""
        return str(self.command["job_id"])


class Load:
    """Submits jobs to a lab in threads, one per job."""

    def __init__(self, lab: Mapping[str, Any]) -> None:
        self._lab = lab
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.jobs: list[Job] = []

    def succeeds(self, seconds: float = 0) -> Job:
        """A job that works for a while, and leaves a result."""
        script = f"echo start >> {RUNS}; sleep {seconds:.1f}; echo ok > result; echo end >> {RUNS}"
        return self._start(script, "succeeded", outputs=[{"name": "result"}])

    def array(
        self,
        tasks: int = 6,
        failing: Collection[int] = (),
        after: float | None = None,
        seconds: float = 0.5,
        *,
        at_first: Collection[int] = (),
        withdrawn: range = range(0),
    ) -> Job:
        """An array whose tasks each work for a while, two of them in each job of Slurm's.

        Args:
            failing: numbers of tasks that end with status 3.
            after: seconds after which it is cancelled, or those of its tasks that are to be withdrawn.
            at_first: numbers of tasks that do so in the first attempt alone; there is a second then.
            withdrawn: numbers of tasks that are cancelled by themselves.
        """
        fail = [*(f"{number}:*" for number in failing), *(f"{number}:1" for number in at_first)]
        script = (
            f"echo start >> {RUNS}; sleep {seconds:.1f}; case $1:$BYOC_ATTEMPT in {'|'.join(fail) or 'none'})"
            f" echo end >> {RUNS}; exit 3;; esac; echo {OK} end >> {RUNS}"
        )
        workload: dict[str, Any] = {"kind": "array", "tasks": {"count": tasks}, "pack": 2}
        workload["argv"] = ["sh", "-c", script, "sh", "{task_number}"]
        return self._start(
            "",
            "failed (tasks_failed)" if failing else "succeeded",
            after,
            failing=frozenset(failing),
            withdrawn=withdrawn,
            again=bool(at_first),
            **workload,
        )

    def fails(self, seconds: float = 0) -> Job:
        """A job that works for a while, and ends with status 3."""
        script = f"echo start >> {RUNS}; sleep {seconds:.1f}; echo end >> {RUNS}; exit 3"
        return self._start(script, "failed (container_failed)")

    def cancelled(self, after: float, seconds: float = 100) -> Job:
        """A job that would work for long, and is cancelled a while after it was accepted."""
        script = f"echo start >> {RUNS}; sleep {seconds:.1f}; echo end >> {RUNS}"
        return self._start(script, "succeeded", cancel_after=after)

    def any(self, chance: random.Random) -> Job:
        """One of them."""
        seconds, tasks = chance.uniform(0, 4), chance.randint(6, 12)
        some = chance.sample(range(tasks), 2)
        kinds: list[Callable[[], Job]] = [
            lambda: self.succeeds(seconds),
            lambda: self.fails(seconds),
            lambda: self.cancelled(after=2 * seconds),
            lambda: self.array(tasks),
            lambda: self.array(tasks, failing=some),
            lambda: self.array(tasks, after=2 * seconds),
            lambda: self.array(tasks, at_first=some),
            lambda: self.array(tasks, withdrawn=range(2, tasks - 1), after=2 * seconds),
        ]
        return chance.choices(kinds, weights=[14, 4, 2, 2, 1, 1, 1, 1])[0]()

    def idle(self) -> bool:
        """Whether everything that was to be said has been said, and answered."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Repeat nothing any more."""
        self._stopping.set()
        for job in self.jobs:
            job.cancel_now.set()

    def _start(
        self,
        script: str,
        expected: str,
        cancel_after: float | None = None,
        *,
        failing: frozenset[int] = frozenset(),
        withdrawn: range = range(0),
        again: bool = False,
        **workload: Any,
    ) -> Job:
        number = len(self.jobs) % len(self._lab["tenants"])
        tenant = self._lab["tenants"][number]
        command = {
            "schema_version": "1",
            "tenant_id": tenant["tenant_id"],
            "workspace_id": tenant["workspace_id"],
            "job_id": f"job-{uuid.uuid4().hex[:12]}",
            "management_node_id": self._lab["node"]["node_id"],
            "execution_profile": {"queue_name": self._lab["queue_name"]},
            "resource_shape": {"cpu": 1, "memory_mib": 64, "walltime_seconds": 120},
            "workload": {
                "kind": "container",
                "image": self._lab["images"][0]["ref"],
                "argv": ["sh", "-c", script],
                **workload,
            },
            "requested_by": {"user_id": tenant["user_id"]},
            **({"retry_policy": {"max_attempts": 2, "on": ["tasks_failed"]}} if again else {}),
        }
        job = Job(number, tenant["tenant_id"], command, expected, cancel_after, failing, withdrawn)
        self.jobs.append(job)
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def _run(self, job: Job) -> None:
        path = f"/v1/nodes/{self._lab['node']['node_id']}/jobs"
        headers = {"Idempotency-Key": f'"{job.key}"'}
        first = self._repeat(job, path, job.command, headers)
        if first is None:
            return
        job.submission_id = first["submission_id"]
        if job.cancel_after is None:
            again = self._repeat(job, path, job.command, headers)
            if again is not None and again != first:
                job.contradictions.append(again)
            return
        job.cancel_now.wait(job.cancel_after)
        if self._stopping.is_set():
            return
        order = {
            name: job.command[name]
            for name in ("schema_version", "tenant_id", "workspace_id", "job_id")
        }
        order |= {name: job.command[name] for name in ("management_node_id", "requested_by")}
        if job.withdrawn:
            order["tasks"] = [{"first": job.withdrawn[0], "last": job.withdrawn[-1]}]
        job.cancelled = not job.withdrawn
        self._repeat(job, f"{path}/{job.job_id}/cancel", order, {})

    def _repeat(
        self, job: Job, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Any:
        """The same request until there is a definite answer; `None` when stopped before."""
        token = self._lab["tenants"][job.tenant]["token"]
        while not self._stopping.is_set():
            try:
                answer = httpx.post(
                    f"{self._lab['adapter']['url']}{path}",
                    json=body,
                    headers={"Authorization": f"Bearer {token}", **headers},
                    timeout=_ANSWER_SECONDS,
                )
            except httpx.TransportError:
                self._stopping.wait(_AGAIN_SECONDS)
                continue
            if answer.status_code == 202:
                return answer.json()
            if 400 <= answer.status_code < 500 and answer.status_code not in {409, 425, 429}:
                job.contradictions.append(answer.text)
                return None
            self._stopping.wait(float(answer.headers.get("Retry-After", _AGAIN_SECONDS)))
        return None
