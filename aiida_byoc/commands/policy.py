"""What the node's owner allows: `policy.toml`. Checked on the node, last, whatever the adapter said.

A command names *entries* of the policy (a queue, a tag); the policy turns them into Slurm's words and a digest.
The answer is a `Placement`, which is stored with the command: a later change of the policy changes no accepted job.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from aiida_byoc.arrays.rules import Arrays, plan, refusals
from aiida_byoc.commands.data import Data
from aiida_byoc.commands.housekeeping import Limits, Progress, Repair, Retention, Signatures, Table
from aiida_byoc.commands.image_policy import (
    ApprovedImage,
    check_repositories,
    resolved_image,
)
from aiida_byoc.commands.placement import Placement, WorkchainPlacement
from aiida_byoc.commands.queues import Ceilings, Queue, RuntimeName, over_the_ceilings
from aiida_byoc.commands.quotas import Quota, Quotas
from aiida_byoc.commands.recovery import Recovery
from aiida_byoc.commands.workchains import Workchain
from aiida_byoc.contracts.commands import (
    CONTAINED,
    ArrayWorkload,
    SubmitJobCommand,
    WorkchainWorkload,
)
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.validation import field_errors
from aiida_byoc.contracts.workchain import EntryPoint
from aiida_byoc.runtimes import FOR_TASKS

__all__ = ["Policy", "PolicyError", "contents"]


class PolicyError(Exception):
    """The policy file is missing or wrong; the message is for the node's owner."""


class Policy(Table):
    """The whole policy of one node."""

    tenants: list[Name] = Field(min_length=1)
    runtime: RuntimeName = "bubblewrap"
    ceilings: Ceilings
    limits: Limits = Limits()
    quotas: Quotas = Quotas()
    repair: Repair = Repair()
    recovery: Recovery = Recovery()
    retention: Retention = Retention()
    arrays: Arrays = Arrays()
    data: Data = Data()
    progress: Progress = Progress()
    signatures: Signatures = Signatures()
    queues: dict[Name, Queue] = Field(min_length=1)
    images: Annotated[dict[str, ApprovedImage], AfterValidator(check_repositories)]
    workchains: dict[EntryPoint, Workchain] = {}

    @property
    def runtimes(self) -> list[str]:
        """Every runtime that a job of this node may run in."""
        return sorted(
            {self.runtime, *(queue.runtime or self.runtime for queue in self.queues.values())}
        )

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read the policy; raise `PolicyError` with one sentence when it cannot be used.

        An owner's change counts at once: the file is read each time. What it says is judged once (measured: 1.8 ms).
        """
        try:
            return _judged(path, _read(path))
        except ValidationError as error:
            first = field_errors(error)[0]
            raise PolicyError(
                f"the policy {path} is wrong at {first.field}: {first.message}"
            ) from error

    def with_arrays_up_to(self, elements: int | None) -> Policy:
        """The same where Slurm takes arrays of so many elements; 0: none at all, `None`: nobody knows."""
        if elements is None or elements >= self.arrays.elements:
            return self
        bounds = {"elements": elements} if elements else {"tasks": 0}
        return self.model_copy(update={"arrays": self.arrays.model_copy(update=bounds)})

    def serve(self, tenant_id: str) -> None:
        """Raise `not-found` unless the node is there for this tenant."""
        if tenant_id not in self.tenants:
            raise ProblemError("not-found")

    def quota(self, tenant_id: str) -> Quota:
        """How much of the node a tenant may have."""
        quota = self.quotas.of(tenant_id)
        if quota.running is None:
            return quota.model_copy(update={"running": self.limits.active_jobs_per_tenant})
        return quota

    def place(self, command: SubmitJobCommand) -> Placement | WorkchainPlacement:
        """Decide where the command runs; raise a problem that names each field at fault."""
        self.serve(command.tenant_id)
        errors = [
            *over_the_ceilings(command, self._ceilings(command)),
            *self._unknown_entries(command),
            *self._unfit_work_chain(command),
            *self._ungranted(command),
            *self.data.refusals(command.workload),
            *self._not_in_parallel(command),
            *self._arrays_beyond(command),
            *self.quotas.never_fits(command, self.dealt(command)["elements"]),
        ]
        if errors:
            raise ProblemError(
                "policy-refused",
                f"The node's policy refuses {len(errors)} field(s), first {errors[0].field}.",
                errors=errors,
            )
        profile, workload = command.execution_profile, command.workload
        queue = self.queues[profile.queue_name]
        where: dict[str, Any] = {
            "partition": queue.partition,
            "account": queue.accounts[profile.account]
            if profile.account
            else queue.default_account,
            "qos": queue.qos[profile.qos] if profile.qos else queue.default_qos,
            "gres": queue.gres,
        }
        if isinstance(workload, WorkchainWorkload):
            approved = self.workchains[workload.entry_point]
            return WorkchainPlacement(**where, **approved.model_dump(exclude={"inputs"}))
        digest, pull = resolved_image(self.images, workload.image)
        return Placement(
            **where,
            image_digest=digest,
            pull=pull,
            runtime=queue.runtime or self.runtime,
            processes=self._ceilings(command).processes,
            scratch=queue.scratch,
            data=self.data.caps(),
            progress_seconds=self.progress.seconds,
            recovery=self.recovery.within(self.ceilings.memory_mib),
            arrays=self._array_rules if isinstance(workload, ArrayWorkload) else None,
            **self.dealt(command),
        )

    @property
    def _array_rules(self) -> Arrays:
        """No array may be more jobs in Slurm than the node may have there in all."""
        most = self.limits.slurm_jobs or self.arrays.elements
        return self.arrays.model_copy(update={"elements": min(self.arrays.elements, most)})

    def _ceilings(self, command: SubmitJobCommand) -> Ceilings:
        queue = self.queues.get(command.execution_profile.queue_name)
        return queue.most(self.ceilings) if queue else self.ceilings

    def _unknown_entries(self, command: SubmitJobCommand) -> list[FieldError]:
        profile = command.execution_profile
        queue = self.queues.get(profile.queue_name)
        if queue is None:
            return [_unknown("execution_profile.queue_name", list(self.queues))]
        errors = []
        if profile.account is not None and profile.account not in queue.accounts:
            errors.append(_unknown("execution_profile.account", list(queue.accounts)))
        if profile.qos is not None and profile.qos not in queue.qos:
            errors.append(_unknown("execution_profile.qos", list(queue.qos)))
        return errors

    def _unfit_work_chain(self, command: SubmitJobCommand) -> list[FieldError]:
        workload = command.workload
        if not isinstance(workload, WorkchainWorkload):
            return []
        approved = self.workchains.get(workload.entry_point)
        if approved is None:
            return [_unknown("workload.entry_point", list(self.workchains))]
        errors = approved.refusals(workload)
        if command.retry_policy.max_attempts > 1:
            message, remedy = "a work chain is one attempt", "leave retry_policy out"
            errors.append(
                FieldError(field="retry_policy.max_attempts", message=message, remedy=remedy)
            )
        return errors

    def _ungranted(self, command: SubmitJobCommand) -> list[FieldError]:
        queue, workload = self.queues.get(command.execution_profile.queue_name), command.workload
        asked = isinstance(workload, CONTAINED) and workload.network != "none"
        if queue is None or queue.network or not asked:
            return []
        granting = ", ".join(sorted(name for name, each in self.queues.items() if each.network))
        return [
            FieldError(
                field="workload.network",
                message="is not granted in this queue",
                remedy=f"leave it out, or use a queue that grants it: {granting or 'none does'}",
            )
        ]

    def dealt(self, command: SubmitJobCommand) -> dict[str, Any]:
        """Into how many jobs of Slurm's a command is dealt out, and how many of them run at a time."""
        workload = command.workload
        if not isinstance(workload, ArrayWorkload):
            return {"elements": 1, "at_a_time": 1}
        dealt = plan(len(workload.tasks), workload, command.resource_shape, self._array_rules)
        return {
            "elements": dealt.elements,
            "at_a_time": min(dealt.elements, dealt.at_a_time),
        }

    def _arrays_beyond(self, command: SubmitJobCommand) -> list[FieldError]:
        queue, workload = self.queues.get(command.execution_profile.queue_name), command.workload
        if queue is None or not isinstance(workload, ArrayWorkload):
            return []
        if (queue.runtime or self.runtime) not in FOR_TASKS:
            message = "the runtime of this queue runs one container for each job"
            remedy = "use a queue for parallel jobs"
            return [FieldError(field="workload.kind", message=message, remedy=remedy)]
        return refusals(workload, command.resource_shape, self._array_rules)

    def _not_in_parallel(self, command: SubmitJobCommand) -> list[FieldError]:
        queue, shape = self.queues.get(command.execution_profile.queue_name), command.resource_shape
        asked = {"nodes": shape.nodes, "tasks_per_node": shape.tasks_per_node}
        is_container = isinstance(command.workload, CONTAINED)
        if queue is None or not is_container or (queue.runtime or self.runtime) in FOR_TASKS:
            return []
        able = (
            name
            for name, each in self.queues.items()
            if (each.runtime or self.runtime) in FOR_TASKS
        )
        others = ", ".join(sorted(able)) or "none is"
        return [
            FieldError(
                field=f"resource_shape.{name}",
                message="the runtime of this queue runs one container for each job",
                remedy=f"leave it out, or use a queue for parallel jobs: {others}",
            )
            for name, number in asked.items()
            if number > 1
        ]


def contents(path: Path) -> dict[str, Any]:
    """What the file holds, whether or not it makes a policy; `PolicyError` when it is no TOML."""
    return _parsed(path, _read(path))


@functools.lru_cache(maxsize=2)
def _judged(path: Path, content: bytes) -> Policy:
    return Policy.model_validate(_parsed(path, content))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}") from error


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {path} is not TOML: {error}") from error


def _unknown(field: str, known: list[str]) -> FieldError:
    names = ", ".join(sorted(known)) or "none"
    return FieldError(
        field=field, message="is not an entry of the node's policy", remedy=f"use one of: {names}"
    )
