"""How many processes a container has, where root starts it: a cgroup counts them, and nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aiida_byoc.runtimes.in_job import limits
from tests.eventually import eventually
from tests.unit.node.inside import SLURM, Job
from tests.unit.node.test_in_job import contained, needs_bubblewrap

HIERARCHY = Path("/sys/fs/cgroup/pids")
COUNTED = HIERARCHY / "byoc-{SLURM_CLUSTER_NAME}-{SLURM_JOB_ID}".format(**SLURM)

pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.access(HIERARCHY / "tasks", os.W_OK),
        reason="not root, or no cgroups of version 1",
    ),
]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A cgroup that the job is started in."""
    home = HIERARCHY / f"unit-{os.getpid()}"
    home.mkdir()
    yield home
    home.rmdir()


@pytest.mark.parametrize(("children", "code"), [(6, 0), (7, 2)])
def test_it_may_have_as_many_as_were_promised(
    job: Job, rootfs: Path, children: int, code: int
) -> None:
    """Its first process and the shell among them."""
    script = f"i=0; while [ $i -lt {children} ]; do sleep 60 & i=$((i+1)); done"

    assert job.run("sh", "-c", script, processes=8, **contained(rootfs)) == code

    assert not COUNTED.exists()


def test_the_hierarchy_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = limits._hierarchy()
    monkeypatch.setattr(limits, "_USUAL", "/nowhere")

    assert usual[0] == str(HIERARCHY)
    assert limits._hierarchy() == usual


def test_who_starts_it_is_not_counted(job: Job, rootfs: Path, home: Path, tmp_path: Path) -> None:
    enter = ["sh", "-c", f'echo $$ > {home}/cgroup.procs; exec "$@"', "sh"]
    process = replace(job, as_user=enter).start(
        ["sh", "-c", "echo up; until test -e go; do sleep 0.05; done"], **contained(rootfs)
    )
    eventually(lambda: job.said() == "up\n", "the program to run", logs=[job.directory / "stderr"])

    threads = {int(line) for line in (home / "tasks").read_text().split()}
    counted = (COUNTED / "cgroup.procs").read_text().split()
    (tmp_path / "work" / "go").touch()

    assert process.wait(30) == 0
    assert process.pid in threads
    assert str(process.pid) not in counted
    assert len(counted) >= 3  # the runtime's, the container's first, the shell
