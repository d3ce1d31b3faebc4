"""Parallel jobs: a container for each task, over two nodes, started together by `srun`, recorded once. Real Slurm."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.runtimes import FOR_TASKS, OVERHEAD_MIB
from aiida_byoc.runtimes.in_job.environment import TASK_VARIABLES
from tests.engine.driving import Underway, cluster, until_none

SHAPE = {
    "cpu": 2,
    "memory_mib": 256,
    "walltime_seconds": 120,
    "nodes": 2,
    "tasks_per_node": 2,
}
PMI = (Path(__file__).parent / "pmi.py").read_text()
REPORT = (
    "json.dump({'hosts': hosts, 'environment': dict(os.environ), 'size': size},"
    " open(f'task-{rank}.json', 'w'));"
    "print(f'out of {rank}'); print(f'err of {rank}', file=sys.stderr);"
    "sum(number for number in range(3000000))"
)

SLURMS_OWN = re.compile(r"^slurmstepd-\S+: error: no task list created!\n", re.MULTILINE)
"""Said where slurmd looks at a step's memory (`OverMemoryKill`) while the step ends (22.05, `_handle_stat_jobacct`)."""


def parallel(script: str, *, outputs: int = 0, **shape: int) -> dict[str, Any]:
    """A job whose tasks run the script, and leave so many reports."""
    return {
        "workload": {
            "argv": ["python3", "pmi.py", script],
            "inputs": [{"name": "pmi.py", "text": PMI}],
            "outputs": [{"name": f"task-{number}.json"} for number in range(outputs)],
        },
        "resource_shape": {**SHAPE, **shape},
    }


def reports(chain: Any, number: int) -> list[Any]:
    """What the tasks left."""
    kept = chain.outputs.outputs.base.repository
    return [json.loads(kept.get_object_content(f"task-{each}.json")) for each in range(number)]


@pytest.mark.parametrize("runtime", sorted(FOR_TASKS))
def test_the_tasks_of_a_job_find_each_other(
    node: Any, scontrol: Callable[..., str], runtime: str
) -> None:
    """Each in a container of its own, two on each node; one Slurm job, one record, all that they said."""
    submission = node.accept(**parallel(REPORT, outputs=4), placed={"runtime": runtime})

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    told = reports(chain, 4)
    job = node.events(submission)[-1]["scheduler"]["job_id"]
    hosts = told[0]["hosts"]
    assert [host.partition(".")[0] for host in hosts] == ["n1", "n1", "n2", "n2"]
    assert all(host.endswith(f"-{job}") for host in hosts)
    assert [each["hosts"] for each in told] == [hosts] * 4
    seen = [
        {name: value for name, value in each["environment"].items() if name[:4] in {"PMI_", "SLUR"}}
        for each in told
    ]
    assert all(set(variables) <= set(TASK_VARIABLES) for variables in seen)
    assert [each["SLURM_PROCID"] for each in seen] == ["0", "1", "2", "3"]
    assert [each["SLURM_LOCALID"] for each in seen] == ["0", "1", "0", "1"]
    assert {each["SLURM_CPUS_PER_TASK"] for each in seen} == {"1"}
    kept = chain.outputs.retrieved.base.repository
    streams = {
        name: sorted(SLURMS_OWN.sub("", kept.get_object_content(name)).splitlines())
        for name in ("stdout", "stderr")
    }
    assert streams["stdout"] == [f"out of {rank}" for rank in range(4)]
    assert streams["stderr"] == [f"err of {rank}" for rank in range(4)]
    result = node.events(submission)[-1]["result"]
    assert result["exit_code"] == 0
    assert result["usage"]["cpu_seconds"] > 4 * 0.02
    shown = scontrol("show", "job", job)
    memory = f"MinMemoryNode={256 + 2 * OVERHEAD_MIB.get(runtime, 0)}M"
    for granted in ("NumNodes=2", "NumCPUs=4", "NumTasks=4", "CPUs/Task=1", memory):
        assert granted in shown


@pytest.mark.parametrize(("nodes", "tasks"), [(2, 1), (1, 2)])
def test_a_job_is_parallel_over_nodes_or_on_one(node: Any, nodes: int, tasks: int) -> None:
    shape = {"nodes": nodes, "tasks_per_node": tasks}

    chain = node.run(node.accept(**parallel(REPORT, outputs=2, **shape)))

    assert chain.is_finished_ok, chain.exit_message
    hosts = reports(chain, 2)[1]["hosts"]
    assert len(set(hosts)) == nodes


@pytest.mark.parametrize("runtime", sorted(FOR_TASKS))
def test_tasks_of_a_node_share_memory_and_scratch_and_nothing_is_left(
    node: Any, runtime: str
) -> None:
    script = (
        "open(f'/dev/shm/{rank}', 'w').close(); open(f'/scratch/{rank}', 'w').close(); barrier();"
        "json.dump([sorted(os.listdir('/dev/shm')), sorted(os.listdir('/scratch'))],"
        " open(f'task-{rank}.json', 'w')); barrier()"
    )
    shape = {"nodes": 1, "scratch_mib": 5}
    submission = node.accept(**parallel(script, outputs=2, **shape), placed={"runtime": runtime})

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    assert reports(chain, 2) == [[["0", "1"], ["0", "1"]]] * 2
    assert left_of(node.events(submission)[-1]["scheduler"]["job_id"]) == []


def test_a_task_that_fails_ends_the_others_and_its_status_is_the_jobs(node: Any) -> None:
    """Not that of those which were ended for it."""
    script = "time.sleep(0 if rank == 1 else 100); sys.exit(3)"
    submission = node.accept(**parallel(script))

    chain = node.run(submission)

    assert chain.exit_code.status == 400
    last = node.events(submission)[-1]
    assert (last["error"]["code"], last["result"]["exit_code"]) == ("container_failed", 3)
    assert last["result"]["usage"]["walltime_seconds"] < 60
    until_none(lambda: left_of(last["scheduler"]["job_id"]))


def test_of_several_that_fail_the_worst_counts(node: Any) -> None:
    submission = node.accept(**parallel("barrier(); sys.exit(rank + 2)"))

    node.run(submission)

    assert node.events(submission)[-1]["result"]["exit_code"] in {2, 3, 4, 5}


def test_a_program_that_no_task_can_start_is_told(node: Any) -> None:
    submission = node.accept("no-such-program", resource_shape=SHAPE)

    node.run(submission)

    error = node.events(submission)[-1]["error"]
    assert error["code"] == "container_not_started"
    assert "no-such-program" in error["message"]


@pytest.mark.parametrize("runtime", sorted(FOR_TASKS))
def test_nothing_is_left_of_a_cancelled_job_on_any_node(node: Any, runtime: str) -> None:
    asked = parallel("print('up', flush=True); time.sleep(100)")
    job = Underway(node, node.accept(**asked, placed={"runtime": runtime}))
    slurm_job = job.until_state("running")["scheduler"]["job_id"]
    job.until(lambda: said(job).count("up") == 4, "all tasks to run")
    assert len(left_of(slurm_job)) > 4

    subprocess.run(["scancel", slurm_job], check=True)
    job.finish()

    last = job.last
    assert (last["state"], last["error"]["code"]) == ("failed", "killed")
    until_none(lambda: left_of(slurm_job))


def said(job: Underway) -> str:
    try:
        return (job.directory / "stdout").read_text()
    except (OSError, TypeError, ValueError):
        return ""


def left_of(slurm_job: str) -> list[str]:
    """What is on this machine, which is both nodes: processes of the job, and places of its own."""
    name = f"{cluster()}-{slurm_job}"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            if name.encode() in line or f"SLURM_JOB_ID={slurm_job}\0" in environ_of(process):
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    places = [Path(place) / f"byoc-{name}" for place in ("/tmp", "/var/tmp", "/dev/shm")]
    return [line for line in found if line] + [str(place) for place in places if place.exists()]


def environ_of(process: Path) -> str:
    if process.name == str(os.getpid()):
        return ""
    return (process / "environ").read_bytes().decode(errors="replace")
