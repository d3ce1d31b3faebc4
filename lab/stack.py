"""The whole stack, left to right: Postgres to node, and the page; `lab.json` tells where all are."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import (
    adapter,
    convex,
    credentials,
    image,
    node,
    page,
    postgres,
    process,
    rabbitmq,
    slurm,
)
from lab.paths import LabPaths

__all__ = ["LAB_FILE", "down", "is_up", "read", "up"]

LAB_FILE = "lab.json"
TENANTS = ["acme", "globex"]
CONVEX_SECONDS = 60.0

Route = Callable[[str, str], str]
"""Turns name and URL of a part into the URL by which the others reach it."""


def up(
    paths: LabPaths,
    via: Route = lambda _, url: url,
    *,
    at_the_product: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    enrols_with: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Start everything and wait until it is ready; return what `lab.json` holds.

    `BYOC_LAB_BROKER` names another broker (`core.rabbitmq`, `core.zeromq`), `BYOC_LAB_WORKERS` the number of AiiDA's
    workers; with `BYOC_LAB_ACCOUNTING=slurmdbd` Slurm keeps accounts.

    Args:
        via: puts proxies before `convex` and `adapter`; a lab that is up keeps its own.
        at_the_product: entered while product and adapter are started, and asked.
        enrols_with: the node is not declared to the adapter by hand, but enrols itself with a token of the product's
            and these options.

    Raises:
        LabError: a part did not start; what had started is stopped again, its logs are in the message.
    """
    if is_up(paths):
        return read(paths)
    # Product and node must not remember different pasts: a lab that is not up starts from nothing.
    process.sweep(paths)
    paths.discard()
    paths = LabPaths(paths.root)
    try:
        with page.building() as built:
            return _start(paths, via, at_the_product, enrols_with, built)
    except BaseException:
        process.sweep(paths)
        raise


def down(paths: LabPaths) -> None:
    """Stop everything and remove the lab's directories, whatever state it is in."""
    node.stop(paths)
    process.stop(paths, "page", "adapter", "convex")
    with contextlib.suppress(process.LabError, OSError):  # the sweep ends what does not stop
        slurm.stop(paths)
    process.sweep(paths)
    paths.discard()


def is_up(paths: LabPaths) -> bool:
    """Whether a complete lab runs here."""
    daemons = process.recorded(paths)
    return (
        (paths.root / LAB_FILE).exists()
        and bool(daemons)
        and all(daemon.alive for daemon in daemons.values())
    )


def read(paths: LabPaths) -> dict[str, Any]:
    """What `lab.json` holds."""
    content: dict[str, Any] = json.loads((paths.root / LAB_FILE).read_text())
    return content


def _start(
    paths: LabPaths,
    via: Route,
    at_the_product: Callable[[], AbstractContextManager[None]],
    enrols_with: Sequence[str] | None,
    built_page: Future[Path] | None,
) -> dict[str, Any]:
    with _step("Postgres"):
        database = postgres.start(paths)
    with _step("Slurm"):
        cluster = slurm.start(paths)
    with _step("demonstration image"):
        built = image.build(paths)
    enrolment = None
    with _step("Convex functions"), at_the_product():
        keys = credentials.make(paths, TENANTS)
        product, declared = _start_convex(paths, keys, declare_node=enrols_with is None)
        if enrols_with is not None:
            enrolment = node.Enrolment(_enrolment_token(product, keys), enrols_with)
    with _step("adapter"), at_the_product():
        reached = replace(product, url=via("convex", product.url))
        adapter_url, adapter_daemon = adapter.start(
            paths,
            convex=reached,
            credentials=keys,
            declare_node=enrols_with is None,
            origins=[page.origin(paths)],
        )
        adapter_url = via("adapter", adapter_url)
    broker = os.environ.get("BYOC_LAB_BROKER") or node.BROKER
    queues = None
    if broker == "core.rabbitmq":
        with _step("RabbitMQ"):
            queues = rabbitmq.start(paths)
    with _step("management node"):
        management_node = node.start(
            paths,
            postgres=database,
            slurm=cluster,
            image=built,
            credentials=keys,
            adapter_url=adapter_url,
            enrolment=enrolment,
            broker=broker,
            rabbitmq=queues,
            workers=int(os.environ.get("BYOC_LAB_WORKERS") or node.WORKERS),
        )
    content: dict[str, Any] = {
        "adapter": {"url": adapter_url, "pid": adapter_daemon.pid, "log": str(adapter_daemon.log)},
        "convex": {
            "url": product.url,
            "site_url": product.site_url,
            "admin_key": product.admin_key,
            "declared": declared,
            **_pid_and_log(paths, "convex"),
        },
        "node": {
            "node_id": management_node.node_id,
            "agent_pid": management_node.agent_pid,
            "aiida_path": str(management_node.aiida_path),
            "profile": management_node.profile,
            "broker": management_node.broker,
            "workers": management_node.workers,
            "daemon_log": str(management_node.daemon_log),
            "log": str(management_node.log),
            "environment": node.environment(paths, cluster),
        },
        "product": {"signing_key_file": str(keys.signing.file), "key_id": keys.signing.key_id},
        "postgres": {"dsn": database.dsn, "pid": database.pid},
        "slurm": {
            "conf": str(cluster.conf),
            "slurmctld_pid": cluster.slurmctld_pid,
            "slurmd_pids": cluster.slurmd_pids,
            "nodes": cluster.nodes,
        },
        "tenants": [
            {
                "tenant_id": tenant.tenant_id,
                "workspace_id": tenant.workspace_id,
                "user_id": tenant.user_id,
                "token": tenant.token,
            }
            for tenant in keys.tenants
        ],
        "images": [{"ref": built.ref, "digest": built.digest}],
        "queue_name": node.QUEUE,
    }
    if built_page is not None:
        with _step("page"), at_the_product():
            content["page"] = _start_page(paths, built_page.result(), content)
    if queues is not None:
        content["rabbitmq"] = {"pid": queues.pid, "port": queues.port}
    file = paths.root / LAB_FILE
    draft = file.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content, indent=2))
    draft.rename(file)
    return content


def _start_convex(
    paths: LabPaths, keys: credentials.Credentials, *, declare_node: bool
) -> tuple[convex.Convex, dict[str, Any]]:
    product = convex.start(
        lambda name, argv, env: process.spawn(paths, name, argv, env=env),
        port=paths.ports("convex")[0],
        admin_key=secrets.token_hex(24),
        product_issuer=keys.product,
        service_issuer=keys.service,
        signing_key=keys.signing.jwk,
        commanding=convex.Commanding(
            adapter_url=adapter.address(paths),
            issuer=keys.commands.iss,
            key=keys.commands_key.jwk,
        ),
    )
    process.wait_until(
        lambda: convex.ready(product),
        CONVEX_SECONDS,
        "the Convex functions to answer",
        needs=[process.recorded(paths)["convex"]],
    )
    tenants = [tenant.tenant_id for tenant in keys.tenants]
    declared: dict[str, Any] = {
        "tenants": [{"tenant_id": tenant} for tenant in tenants],
        "memberships": [
            {
                "tenant_id": each.tenant_id,
                "token_identifier": each.token_identifier,
                "role": "owner",
            }
            for each in keys.tenants
        ],
    }
    if declare_node:
        known = {"node_id": node.NODE_ID, "tenant_ids": tenants, "owner": tenants[0]}
        declared["nodes"] = [known]
    convex.call(product, "mutation", "tenancy:seed", declared)
    return product, declared


def _start_page(paths: LabPaths, built: Path, content: dict[str, Any]) -> dict[str, Any]:
    offered = ("tenant_id", "user_id", "token")
    url, daemon = page.start(
        paths,
        built,
        convex_url=content["convex"]["url"],
        adapter_url=content["adapter"]["url"],
        tenants=[{name: tenant[name] for name in offered} for tenant in content["tenants"]],
    )
    return {"url": url, "pid": daemon.pid, "log": str(daemon.log)}


def _enrolment_token(product: convex.Convex, keys: credentials.Credentials) -> str:
    """What the first tenant's owner gets from the product for the new node."""
    owner = keys.tenants[0]
    answer = convex.call(
        product,
        "action",
        "nodes:create",
        {"tenant_id": owner.tenant_id, "node_id": node.NODE_ID},
        authorization=f"Bearer {owner.token}",
    )
    return str(answer["enrolment_token"])


def _pid_and_log(paths: LabPaths, name: str) -> dict[str, Any]:
    daemon = process.recorded(paths)[name]
    return {"pid": daemon.pid, "log": str(daemon.log)}


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    sys.stderr.write(f"lab: starting {what} … ")
    sys.stderr.flush()
    try:
        yield
    except BaseException:
        sys.stderr.write("failed\n")
        raise
    sys.stderr.write("ready\n")
