"""What this machine can tell of a policy: whether what it names is there."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from aiida_byoc.asking import largest_array, said
from aiida_byoc.commands.policy import Policy
from aiida_byoc.contracts.problems import FieldError
from aiida_byoc.node import NodeSettings, SettingsError
from aiida_byoc.runtimes import RUNTIMES, missing
from aiida_byoc.runtimes.images import ImageStore

__all__ = ["OF_THE_SITE", "Unknown", "findings"]


class Unknown(Exception):
    """Something cannot be asked here; the message says what, and why."""


Question = Callable[[Policy, NodeSettings | None], Iterator[FieldError]]


def findings(
    policy: Policy, settings: NodeSettings | None, asked: tuple[Question, ...] | None = None
) -> tuple[list[FieldError], list[str]]:
    """What is not as the policy says, and what could not be compared.

    Args:
        settings: the node's, which tell where its images are.
        asked: by default everything.
    """
    found: list[FieldError] = []
    unknown: list[str] = []
    for question in asked or (*OF_THE_SITE, _runtimes, _work):
        try:
            found += question(policy, settings)
        except Unknown as error:
            unknown.append(str(error))
    return found, unknown


def _tenants(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    for name in sorted(set(policy.quotas.tenants) - set(policy.tenants)):
        yield FieldError(
            field=f"quotas.tenants.{name}",
            message="is the quota of a tenant that the node does not serve",
            remedy=f"use one of tenants: {', '.join(policy.tenants)}",
        )


def _partitions(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    known = set(_ask("partitions", "sinfo", "--noheader", "--format=%R"))
    for name, queue in policy.queues.items():
        if queue.partition not in known:
            yield _not_there(f"queues.{name}.partition", "partition of this cluster", known)


def _accounts(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    named = {
        (f"queues.{queue}.accounts.{name}", word)
        for queue, each in policy.queues.items()
        for name, word in each.accounts.items()
    } | {
        (f"queues.{queue}.default_account", each.default_account)
        for queue, each in policy.queues.items()
        if each.default_account
    }
    yield from _of_accounting(
        named,
        "account of this user in Slurm",
        *("associations", f"user={getpass.getuser()}", "format=Account"),
    )


def _qos(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    named = {
        (f"queues.{queue}.qos.{name}", word)
        for queue, each in policy.queues.items()
        for name, word in each.qos.items()
    } | {
        (f"queues.{queue}.default_qos", each.default_qos)
        for queue, each in policy.queues.items()
        if each.default_qos
    }
    yield from _of_accounting(named, "QOS of this user in Slurm", "qos", "format=Name")


def _of_accounting(named: set[tuple[str, str]], what: str, *question: str) -> Iterator[FieldError]:
    """Compare with what Slurm's accounting knows, if anything is named and there is one."""
    if not named:
        return
    known = set(_ask(what.partition(" ")[0], "sacctmgr", "-nP", "show", *question))
    if not known:
        raise Unknown(f"{what.partition(' ')[0]}: Slurm's accounting names none")
    for field, word in sorted(named):
        if word not in known:
            yield _not_there(field, what, known)


def _arrays(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    if policy.arrays.tasks == 0:
        return
    most = largest_array()
    if most is None:
        raise Unknown("arrays: Slurm does not tell its MaxArraySize")
    if policy.arrays.elements > most:
        yield FieldError(
            field="arrays.elements",
            message=f"exceeds Slurm's MaxArraySize of {most}",
            remedy=f"set it to {most} or less" if most else "set arrays.tasks = 0",
        )


def _runtimes(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    used = {"runtime": policy.runtime} | {
        f"queues.{name}.runtime": queue.runtime
        for name, queue in policy.queues.items()
        if queue.runtime
    }
    for field, runtime in used.items():
        if lacking := missing(runtime):
            yield FieldError(
                field=field,
                message=f"cannot be used on this machine: {', '.join(lacking)} missing",
                remedy=f"install it, there and on the compute nodes ({RUNTIMES[runtime].HELP})",
            )


def _images(policy: Policy, settings: NodeSettings | None) -> Iterator[FieldError]:
    kept = {name: image for name, image in policy.images.items() if not image.pull}
    if not kept:
        return
    if settings is None:
        raise Unknown("images: this profile is no node yet (`verdi data byoc init`)")
    store = ImageStore(settings.image_store)
    for name, image in kept.items():
        for index, digest in enumerate(image.digests):
            if not store.has(digest):
                yield FieldError(
                    field=f"images.{name}.digests.{index}",
                    message="is not in the node's store",
                    remedy="add it with `verdi data byoc images add`, or let the node fetch it: pull = true",
                )


def _data(policy: Policy, _: NodeSettings | None) -> Iterator[FieldError]:
    for index, path in enumerate(policy.data.paths):
        if not Path(path).is_dir():
            yield FieldError(
                field=f"data.paths.{index}",
                message="is no directory on this machine",
                remedy="make it here and on the compute nodes, or correct it",
            )
    if policy.data.ca_file and not Path(policy.data.ca_file).is_file():
        yield FieldError(
            field="data.ca_file", message="is no file on this machine", remedy="correct it"
        )


def _work(policy: Policy, settings: NodeSettings | None) -> Iterator[FieldError]:
    """What AiiDA must have: the work chains, and slots for the jobs."""
    from aiida_byoc.cli.parts import work_chains
    from aiida_byoc.cli.profile import check_slots

    if settings is None:
        return
    if wrong := work_chains(policy):
        yield FieldError(field="workchains", message=wrong)
    try:
        check_slots(policy.limits, workers=1)
    except SettingsError as error:
        yield FieldError(field="limits.active_jobs", message=str(error))


def _ask(what: str, *command: str) -> list[str]:
    try:
        return said(*command).split()
    except (OSError, subprocess.SubprocessError) as error:
        raise Unknown(f"{what}: `{command[0]}` does not answer here") from error


def _not_there(field: str, what: str, known: set[str]) -> FieldError:
    names = ", ".join(sorted(known)[:20]) or "none is known"
    return FieldError(field=field, message=f"is no {what}", remedy=f"use one of: {names}")


OF_THE_SITE = (_tenants, _partitions, _accounts, _qos, _arrays, _images, _data)
"""Whether what the policy names is in Slurm, in the store of images, on the disks."""
