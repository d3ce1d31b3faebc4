"""A node that nobody can reach: everything works all the same, for it is the node that calls."""

from __future__ import annotations

import os
import selectors
import socket
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from lab import process
from lab.networks import NODE, Networks
from tests.network.product import Product

LINK_DOWN_SECONDS = float(os.environ.get("BYOC_LINK_DOWN_SECONDS") or 45)
"""How long the wire is cut; `docs/reliability.md` tells of ten minutes."""
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
