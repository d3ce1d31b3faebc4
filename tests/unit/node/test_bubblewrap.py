"""What a container started by bubblewrap can and cannot do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from aiida_byoc.runtimes import Container, bubblewrap
from tests.unit.node.inside import Job

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap on PATH")


def run(place: Path, rootfs: Path, *argv: str, **granted: bool) -> tuple[int, str]:
    """Run a container as a job does; return its exit status and what it said."""
    job = Job(place)
    launch = bubblewrap.launch(Container(rootfs=str(rootfs), memory_mib=64, **granted))
    status = job.run(*argv, launch=launch, rootfs=rootfs, env={"PATH": "/bin"})
    return status, job.said()


@pytest.mark.parametrize(
    ("place", "possible"),
    [
        ("/work", True), ("/tmp", True), ("/dev/shm", True),
        ("/", False), ("/bin", False), ("/dev", False), ("/proc/sys", False), ("/proc/sys/vm", False),
    ],
)  # fmt: skip
def test_i26_only_work_and_memory_can_be_written(
    tmp_path: Path, rootfs: Path, place: str, possible: bool
) -> None:
    status, _ = run(tmp_path, rootfs, "sh", "-c", f"echo x > {place}/f")

    assert (status == 0) == possible
    assert not (rootfs / place.lstrip("/") / "f").exists()
    assert (tmp_path / "work" / "f").exists() == (place == "/work")


def test_i26_the_container_has_no_privileges(tmp_path: Path, rootfs: Path) -> None:
    _, said = run(tmp_path, rootfs, "cat", "/proc/self/status")

    fields = dict(re.findall(r"^(\w+):\s*(\S+)", said, re.MULTILINE))
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"] != "0"
    assert int(fields["Pid"]) < 10  # in a process namespace of its own


@pytest.mark.parametrize("network", [False, True])
def test_i26_the_container_has_no_network_but_by_grant(
    tmp_path: Path, rootfs: Path, network: bool
) -> None:
    _, said = run(tmp_path, rootfs, "cat", "/proc/net/dev", network=network)

    seen = re.findall(r"^\s*([^\s:]+):", said, re.MULTILINE)
    here = re.findall(r"^\s*([^\s:]+):", Path("/proc/net/dev").read_text(), re.MULTILINE)
    assert sorted(seen) == (sorted(here) if network else ["lo"])


def test_the_environment_is_the_given_one(tmp_path: Path, rootfs: Path) -> None:
    _, said = run(tmp_path, rootfs, "env")

    assert set(re.findall(r"^(\w+)=", said, re.MULTILINE)) <= {"PATH", "PWD"}
