"""Two adapters behind the nginx that we ship: a node and its clients meet in one, and in the other when it is gone."""

from __future__ import annotations

import os
import re
import signal
import uuid
from typing import Any

import httpx
import pytest

from lab import adapter, process
from lab.networks import Networks
from lab.paths import LabPaths
from tests.network.product import Product

REPLICAS = ("adapter", "adapter-2")


def test_all_that_concerns_a_node_meets_in_one_replica(
    product: Product, paths: LabPaths, wire: Networks
) -> None:
    """Three connections, one replica: nginx chooses it by the node's name."""
    before = {name: _accepted(paths, name) for name in REPLICAS}

    commands = [product.command("true") for _ in range(3)]
    assert [product.submit(command).status_code for command in commands] == [202] * 3

    more = sorted(_accepted(paths, name) - before[name] for name in REPLICAS)
    assert more == [0, 3]
    assert [product.wait(command)["state"] for command in commands] == ["succeeded"] * 3


def test_every_node_has_one_replica_and_every_replica_has_nodes(
    product: Product, paths: LabPaths, wire: Networks
) -> None:
    """Whoever asks, from whatever machine: only the node's name decides."""
    names = [f"node-{number}" for number in range(24)]
    for machine in (wire.product, wire.node):
        with (
            wire.within(machine),
            httpx.Client(verify=product.trust, timeout=30, trust_env=False) as http,
        ):
            for name in names:
                url = f"{product.lab['adapter']['url']}/v1/nodes/{name}/jobs"
                for path in ("/job-1", "/job-2/logs"):
                    assert http.get(f"{url}{path}").status_code == 401

    log = paths.logs / "byoc-access.log"

    def asked() -> list[tuple[str, str]]:
        return re.findall(r" /v1/nodes/(node-\d+)/jobs/\S+ 401 \S+ (\S+)", log.read_text())

    # nginx notes a request after it has answered it.
    process.wait_until(lambda: len(asked()) >= 4 * len(names), 30, "nginx's notes", logs=[log])
    assert len(asked()) == 4 * len(names)
    replicas = {name: {replica for who, replica in asked() if who == name} for name in names}
    assert {len(each) for each in replicas.values()} == {1}
    assert len(set.union(*replicas.values())) == len(REPLICAS)


@pytest.mark.parametrize("killed", REPLICAS)
def test_a_replica_that_dies_is_replaced_by_the_other(
    product: Product, paths: LabPaths, wire: Networks, killed: str
) -> None:
    """Its sender repeats with the same key; the job that ran is told through whoever is left."""
    running, command = product.command("sleep", "3"), product.command("true")
    _repeat(product, running)  # where the replica before has just come back, they may be apart

    os.kill(process.recorded(paths)[killed].pid, signal.SIGKILL)
    try:
        _repeat(product, command)
        assert product.wait(running)["state"] == "succeeded"
        assert product.wait(command)["state"] == "succeeded"
    finally:
        with wire.within(wire.product):
            adapter.spawn(paths, killed)


def _repeat(product: Product, command: dict[str, Any]) -> None:
    """Submit with one key until it is accepted."""
    key, statuses = str(uuid.uuid4()), []

    def accepted() -> bool:
        statuses.append(product.submit(command, key).status_code)
        return statuses[-1] == 202

    process.wait_until(accepted, 90, "the node and its client to meet")
    assert all(status >= 500 for status in statuses[:-1])


def _accepted(paths: LabPaths, name: str) -> int:
    return (paths.logs / f"{name}.log").read_text().count("command.accepted")
