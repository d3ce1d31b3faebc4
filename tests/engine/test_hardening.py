"""What a container cannot do, though it tries: a program in it attempts every escape and reports (`escapes.py`)."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.batch import MEMORY_MIB, Site

ESCAPES = Path(__file__).with_name("escapes.py").read_text()
PROCESSES = 60
HOG = "block = bytearray(600 * 2**20)\nprint('got it', flush=True)\nimport time; time.sleep(60)"
ONLINE = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
print(client.recv(100).decode(), sorted(name for _, name in socket.if_nameindex()))
"""


@pytest.fixture
def machine(site: Site) -> Iterator[dict[str, Any]]:
    """Something of this machine to reach for: a file, a process, a port, an abstract socket."""
    secret = site.place / "secret"
    secret.write_text("of the job's user")
    secret.chmod(0o644)
    abstract = f"byoc-{uuid.uuid4()}"
    with socket.create_server(("", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield {
            "secret": str(secret),
            "directory": str(site.place),
            "pid": os.getpid(),
            "word": f"byoc_lab={uuid.uuid4()}",
            "address": own_address(),
            "port": server.getsockname()[1],
            "abstract": abstract,
            "processes": PROCESSES,
            "tmp_bytes": MEMORY_MIB * 2**20 // 2,
        }


def own_address() -> str:
    """An address of this machine beside loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_i26_no_escape_succeeds(site: Site, runtime: str, machine: dict[str, Any]) -> None:
    files = {"escapes.py": ESCAPES, "facts.json": json.dumps(machine)}

    # Slurm without cgroups counts what processes share once for each, and one attempt makes many.
    batch = site.submit(
        runtime,
        *("python3", "escapes.py"),
        files=files,
        processes=PROCESSES,
        slurm=["--mem=2048"],
    )

    assert batch.ended()["ExitCode"] == "0:0", batch.job.said("stderr")
    report = batch.report
    assert len(report) == 20
    succeeded = {name: got for name, got in report.items() if got is not None}
    if runtime == "podman" and site.user != "root" and succeeded:
        # Where its user has no subordinate ids, the container's root is that user, and /dev is its own (64 MiB).
        assert succeeded.pop("writes_to_the_image") == ["/dev/escape"]
    assert succeeded == {}


def test_i26_a_program_does_not_get_more_memory_than_its_job(site: Site, runtime: str) -> None:
    """Whether Slurm or the runtime ends it."""
    batch = site.submit(runtime, "python3", "-c", HOG)

    facts = batch.ended()

    assert facts["JobState"] in {"FAILED", "OUT_OF_MEMORY"}
    assert facts["ExitCode"] in {"0:9", "0:125", "137:0"}


def test_the_machines_network_is_there_for_who_was_granted_it(
    site: Site, runtime: str, machine: dict[str, Any]
) -> None:
    interfaces = sorted(name for _, name in socket.if_nameindex())
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
        batch = site.submit(
            runtime, "python3", "-c", ONLINE, machine["address"], port, network=True
        )
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"welcome")

    assert batch.ended()["ExitCode"] == "0:0", batch.job.said("stderr")
    assert batch.job.said() == f"welcome {interfaces}\n"
