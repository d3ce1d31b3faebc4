"""A node that nobody can reach: everything works all the same, for it is the node that calls."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab import node, process
from lab.networks import NODE, PRODUCT, Networks
from lab.paths import LabPaths
from tests.connect_proxy import Proxy, connect_proxy
from tests.network.product import Product

LINK_DOWN_SECONDS = float(os.environ.get("BYOC_LINK_DOWN_SECONDS") or 45)
"""How long the wire is cut; `docs/reliability.md` tells of ten minutes."""
PROXY_PORT = 3128
SCAN_SECONDS = 2.0
AT_ONCE = 4096


def test_a_whole_job_works_through_a_firewall_that_lets_nothing_in(product: Product) -> None:
    command = product.command("sh", "-c", "echo 42; echo done > result")
    command["workload"]["outputs"] = [{"name": "result"}]

    answer = product.submit(command)

    assert answer.status_code == 202, answer.text
    seen = product.wait(command)
    assert (seen["state"], [each["name"] for each in seen["result"]["outputs"]]) == (
        "succeeded",
        ["result"],
    )
    assert product.log(command) == "42\n"


def test_a_running_job_is_read_and_cancelled(product: Product) -> None:
    command = product.command("sh", "-c", "echo up; sleep 600")
    assert product.submit(command).status_code == 202
    product.wait(command, "running")
    process.wait_until(lambda: product.log(command) == "up\n", 30, "the log to be there")

    assert product.cancel(command).status_code == 202

    assert product.wait(command)["state"] == "cancelled"


def test_a_command_without_the_products_signature_is_refused(product: Product) -> None:
    """Whoever has the adapter, or a tenant's token, has no job yet."""
    command = product.command("true")

    answer = product.submit(command, signed=False)

    assert answer.status_code == 403, answer.text
    assert answer.json()["type"].endswith("/signature-invalid")
    assert product.submit(command).status_code == 202
    assert product.wait(command)["state"] == "succeeded"


def test_nothing_of_ours_listens_where_others_can_reach_it(
    lab: dict[str, Any], wire: Networks
) -> None:
    """Without the firewall either: only Slurm's own daemons, which its nodes talk to."""
    conf = Path(lab["slurm"]["conf"]).read_text()
    with wire.within(wire.product):
        assert open_ports(range(1, 65536)) == set()
    wire.open_to_the_outside()
    try:
        with wire.within(wire.product):
            found = open_ports(range(1, 65536))
    finally:
        wire.close_to_the_outside()
    assert found <= slurm_ports(conf), found
    with wire.within(wire.node):
        assert datagrams() == set()


def test_a_lost_link_loses_nothing_and_the_job_goes_on(
    product: Product, lab: dict[str, Any], wire: Networks
) -> None:
    """The job runs and ends meanwhile; all is told in order once there is a way again."""
    before, after = product.command("sleep", "5"), product.command("true")
    assert product.submit(before).status_code == 202
    product.wait(before, "running")
    key = str(uuid.uuid4())

    with wire.cut():
        until = time.monotonic() + LINK_DOWN_SECONDS
        refused = process.wait_until(
            lambda: (answer := product.submit(after, key)).status_code in {503, 504} and answer,
            60,
            "the adapter to miss the node",
        )
        process.wait_until(lambda: time.monotonic() > until, LINK_DOWN_SECONDS + 60, "the end")
        assert product.projection(before)["state"] == "running"

    assert refused.json()["retry"] is True
    assert product.wait(before, seconds=90)["state"] == "succeeded"
    process.wait_until(
        lambda: product.submit(after, key).status_code == 202, 90, "the node to be back"
    )
    assert product.wait(after)["state"] == "succeeded"


@pytest.fixture
def proxy(lab: dict[str, Any], paths: LabPaths, wire: Networks) -> Iterator[Proxy]:
    """The node's only way out; a firewall refuses everything else."""

    def dial(host: str, port: int) -> socket.socket:
        with wire.within(wire.product):
            return socket.create_connection((host, port), timeout=10)

    def start_agent(**environment: str) -> None:
        process.stop(paths, "agent")
        with wire.within(wire.node):
            node.spawn_agent(paths, {**lab["node"]["environment"], **environment})

    with contextlib.ExitStack() as stack:
        with wire.within(wire.product):
            proxy = stack.enter_context(connect_proxy(dial, PRODUCT, PROXY_PORT))
        stack.enter_context(wire.only_to(PROXY_PORT))
        start_agent(HTTPS_PROXY=proxy.url)
        yield proxy
    start_agent()


def test_a_node_whose_only_way_out_is_a_proxy_works(product: Product, proxy: Proxy) -> None:
    """Polls, verdicts, events, tokens and logs, all through CONNECT."""
    works, stops, key = product.command("echo", "42"), product.command("sleep", "600"), "k" * 20
    process.wait_until(
        lambda: product.submit(works, key).status_code == 202, 90, "the node to be back"
    )

    assert product.wait(works)["state"] == "succeeded"
    assert product.log(works) == "42\n"
    assert product.submit(stops).status_code == 202
    product.wait(stops, "running")
    assert product.cancel(stops).status_code == 202
    assert product.wait(stops)["state"] == "cancelled"
    assert {each.split()[1] for each in proxy.asked} == {f"{PRODUCT}:443"}


def datagrams() -> set[tuple[str, int]]:
    """Where something in this network waits for datagrams, loopback left out."""
    found = set()
    for family in ("udp", "udp6"):
        _, *lines = Path("/proc/thread-self/net", family).read_text().splitlines()
        for line in lines:
            address, _, port = line.split()[1].partition(":")
            if not address.endswith(("00007F", "0100007F", "01000000")):
                found.add((address, int(port, 16)))
    return found


def slurm_ports(conf: str) -> set[int]:
    """The ports that the lab's Slurm was told to listen on."""
    words = dict(word.split("=", 1) for word in conf.split() if "=" in word)
    first, last = words["Port"].strip("[]").split("-")
    return {int(words["SlurmctldPort"]), *range(int(first), int(last) + 1)}


def open_ports(ports: range) -> set[int]:
    """Which TCP ports of the node take a connection."""
    found = set()
    for start in range(ports.start, ports.stop, AT_ONCE):
        found |= _open_of(range(start, min(start + AT_ONCE, ports.stop)))
    return found


def _open_of(ports: range) -> set[int]:
    found = set()
    with selectors.DefaultSelector() as waiting:
        for port in ports:
            attempt = socket.socket()
            attempt.setblocking(False)
            attempt.connect_ex((NODE, port))
            waiting.register(attempt, selectors.EVENT_WRITE, port)
        until = time.monotonic() + SCAN_SECONDS
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(int(key.data))
                waiting.unregister(sock)
                sock.close()
        for key in list(waiting.get_map().values()):
            with closing(key.fileobj):  # type: ignore[type-var]
                waiting.unregister(key.fileobj)
    return found
