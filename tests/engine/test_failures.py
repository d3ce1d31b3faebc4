"""Each row of the truth table that real Slurm can produce, produced: all of them at once, on a cluster of their own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.ending import Ending, ending, ending_command
from aiida_byoc.schedulers.ends import Record
from aiida_byoc.schedulers.failures import explain
from lab import cgroups, slurm
from lab.process import recorded, wait_until
from tests.engine.driving import OUT_OF_TIME
from tests.labs import scratch_lab
from tests.unit.node.inside import Job

NODES = 8
WHOLE_NODE = 4096
LONG = "sleep 300"
HOG = f"{sys.executable} -c 'import time; block = bytearray(400 * 2**20); time.sleep(300)'"
UNDER_WAY = {"PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to produce an end.

    Attributes:
        program: shell, what the container would run.
        once_running: what happens to the job then.
        code: what the table must say.
        states: in Slurm's words.
        script: instead of the job's program.
    """

    program: str = LONG
    once_running: Callable[[Cluster, str, str], object] | None = None
    options: tuple[str, ...] = ()
    script: str = f"exec {shlex.join([sys.executable, '-B', *in_job.START])}"
    code: str | None
    states: tuple[str, ...]


class Cluster:
    """The cluster of this module, and what it is asked."""

    def __init__(self, running: slurm.Slurm, directory: Path) -> None:
        self.nodes = running.nodes
        self.slurmds = dict(zip(running.nodes, running.slurmd_pids, strict=True))
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": str(running.conf)}

    def ask(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm's; return what it says."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=check, timeout=60
        ).stdout.strip()

    def submit(self, name: str, case: Case, node: str) -> str:
        """Submit as AiiDA would, on that node; return Slurm's id."""
        directory = self.directory / name
        directory.mkdir()
        Job(directory).prepare(["/bin/sh", "-c", case.program])
        (directory / "job.sh").write_text(f"#!/bin/bash\n{case.script} > stdout 2> stderr\n")
        options = ["--output=out", "--error=err", "--mem=100", "--time=1", *case.options]
        said = self.ask(
            *("sbatch", "--parsable", "--no-requeue", f"--job-name={name}", f"--chdir={directory}"),
            *(f"--nodelist={node}", *options, str(directory / "job.sh")),
            check=False,
        )
        return said or self.ask(
            "squeue", "--noheader", "--states=all", "--format=%i", f"--name={name}"
        )

    def states(self) -> dict[str, str]:
        """All jobs by name."""
        said = self.ask("squeue", "--noheader", "--states=all", "--format=%j %T")
        return dict(line.split() for line in said.splitlines())  # type: ignore[misc]

    def seen(self, name: str, job: str) -> Ending:
        """What the plugin's question to Slurm says about that job."""
        return ending(self.ask("bash", "-c", ending_command(job, name)))

    def record(self, name: str) -> Record:
        """What the job itself recorded."""
        try:
            record = json.loads((self.directory / name / in_job.RECORD).read_text())
        except FileNotFoundError:
            return Record.NONE
        return Record.COMPLETE if record["exit_code"] == 0 else Record.FAILED

    def stderr(self, name: str) -> str:
        """What slurmd wrote."""
        path = self.directory / name / "err"
        return path.read_text() if path.exists() else ""


def update(*words: str) -> Callable[[Cluster, str, str], object]:
    """Have an administrator change the job."""
    return lambda cluster, job, _: cluster.ask("scontrol", "update", f"jobid={job}", *words)


def cancel(cluster: Cluster, job: str, _: str) -> None:
    cluster.ask("scancel", job)


def lose(cluster: Cluster, _: str, node: str) -> None:
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def kill_slurmd(cluster: Cluster, _: str, node: str) -> None:
    os.kill(cluster.slurmds[node], signal.SIGKILL)


def preempt(cluster: Cluster, _: str, node: str) -> None:
    words = ("sbatch", "--partition=high", f"--mem={WHOLE_NODE}", f"--nodelist={node}")
    cluster.ask(*words, "--output=/dev/null", "--wrap=true")


def requeue(cluster: Cluster, job: str, _: str) -> None:
    """Which `--no-requeue` forbids, but an administrator may take that back."""
    cluster.ask("scontrol", "update", f"jobid={job}", "requeue=1")
    cluster.ask("scontrol", "requeue", job)
    wait_until(lambda: cluster.seen("requeued", job).restarts, 30, "the job to be requeued")
    cluster.ask("scontrol", "update", f"jobid={job}", "starttime=now")


# In the order in which they are set going: those that wait for Slurm's timers first.
CASES = {
    "slurmd-killed": Case(once_running=kill_slurmd, code="node_fail", states=("NODE_FAIL",)),
    "timeout": Case(once_running=update(OUT_OF_TIME), code="timeout", states=("TIMEOUT",)),
    "deadline": Case(
        options=("--deadline=now+64",), code="deadline_exceeded", states=("DEADLINE",)
    ),
    "requeued": Case(once_running=requeue, code="requeued", states=("FAILED",)),
    "preempted": Case(
        once_running=preempt, options=(f"--mem={WHOLE_NODE}",), code="preempted", states=("PREEMPTED",)
    ),
    "node-down": Case(once_running=lose, code="node_fail", states=("NODE_FAIL",)),
    "out-of-memory": Case(program=HOG, code="oom", states=("OUT_OF_MEMORY", "FAILED")),
    "cancelled": Case(once_running=cancel, code="killed", states=("CANCELLED",)),
    "completed": Case(program="true", code=None, states=("COMPLETED",)),
    "exit-3": Case(program="exit 3", code="container_failed", states=("FAILED",)),
    "signal": Case(program="kill -9 $$", code="container_failed", states=("FAILED",)),
    "batch-killed": Case(program="kill -9 $PPID", code="lost", states=("FAILED",)),
    "no-interpreter": Case(
        script="exec /nonexistent/python3", code="launch_failed", states=("FAILED",)
    ),
    "too-large": Case(
        options=(f"--mem={2 * WHOLE_NODE}",), code="scheduler_refused", states=("FAILED",)
    ),
    "bad-path": Case(
        options=("--output=/nonexistent/out",), code="launch_failed", states=("FAILED",)
    ),
}  # fmt: skip
LOSES_ITS_NODE = ("slurmd-killed", "node-down", "preempted", "deadline")
"""These have a node to themselves; the last one's is drained, so that it cannot start."""


@pytest.fixture(scope="module")
def ended() -> Iterator[tuple[Cluster, dict[str, str]]]:
    """All cases, ended; their Slurm ids by name."""
    with scratch_lab("failures") as paths:
        running = slurm.start(
            paths, nodes=NODES, memory_mib=WHOLE_NODE, with_cgroups=cgroups.are_there()
        )
        cluster = Cluster(running, paths.directory("jobs"))
        own = dict(zip(LOSES_ITS_NODE, cluster.nodes, strict=False))
        cluster.ask(
            *("scontrol", "update", f"nodename={own['deadline']}", "state=drain", "reason=test")
        )
        shared = cluster.nodes[-1]
        places = {name: own.get(name, shared) for name in CASES}
        jobs = {name: cluster.submit(name, case, places[name]) for name, case in CASES.items()}
        for name, case in CASES.items():
            if case.once_running is not None:
                wait_until(
                    lambda name=name: (cluster.directory / name / in_job.FENCE).is_dir(),
                    60,
                    f"{name} to run",
                )
                case.once_running(cluster, jobs[name], places[name])
        wait_until(
            lambda: {cluster.states().get(name) for name in CASES}.isdisjoint(UNDER_WAY),
            120,
            "all jobs to end",
            logs=[paths.logs / "slurmctld.main.log"],
        )
        assert recorded(paths)["slurmctld"].alive
        yield cluster, jobs
        slurm.stop(paths)


@pytest.mark.parametrize("name", CASES)
def test_an_end_in_slurm_has_the_tables_name(
    ended: tuple[Cluster, dict[str, str]], name: str
) -> None:
    cluster, jobs = ended
    seen = cluster.seen(name, jobs[name])

    end = explain(seen, cluster.record(name), stderr=cluster.stderr(name))

    assert seen.state in CASES[name].states
    assert (end.code if end else None) == CASES[name].code


def test_a_process_that_is_killed_for_memory_is_a_state_of_its_own_with_cgroups(
    ended: tuple[Cluster, dict[str, str]],
) -> None:
    """Without them it is FAILED, and only slurmd's words tell."""
    cluster, jobs = ended

    seen = cluster.seen("out-of-memory", jobs["out-of-memory"])

    expected = ("OUT_OF_MEMORY", 125) if cgroups.are_there() else ("FAILED", 9)
    assert (seen.state, seen.signal) == expected


def test_a_job_of_another_name_is_not_ours(ended: tuple[Cluster, dict[str, str]]) -> None:
    """Slurm re-uses ids: what has ours and not our name says nothing about our job, which is lost."""
    cluster, jobs = ended
    command = ending_command(jobs["completed"], "another")

    said = subprocess.run(
        ["bash", "-c", command],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.stdout == ""
    end = explain(ending(said.stdout), Record.NONE)
    assert end is not None
    assert end.code == "lost"


def test_a_failed_nodes_job_knows_where_else_it_could_run(
    ended: tuple[Cluster, dict[str, str]],
) -> None:
    cluster, jobs = ended

    seen = cluster.seen("node-down", jobs["node-down"])

    assert seen.nodes == (cluster.nodes[LOSES_ITS_NODE.index("node-down")],)
    assert cluster.nodes[-1] in seen.usable
    assert not set(seen.nodes) & set(seen.usable)
