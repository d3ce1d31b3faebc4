"""A job from the ledger to its outcome, in AiiDA, through Slurm, in a container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from lab import slurm
from lab.process import wait_until

RESULT = {
    "outputs": [{"name": "deep/result.txt"}],
    "inputs": [{"name": "in/number", "text": "6\n"}],
}
COMPUTE = "mkdir deep; echo $(( $(cat in/number) * 7 )) > deep/result.txt; echo to stderr >&2"


def test_a_job_succeeds_with_its_outputs(node: Any) -> None:
    """Inputs are staged, outputs are kept and hashed, text on stderr is no failure, every event is in order."""
    submission = node.accept("sh", "-c", COMPUTE, workload=RESULT)

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    assert chain.outputs.outputs.base.repository.get_object_content("deep/result.txt") == "42\n"
    assert chain.outputs.retrieved.base.repository.get_object_content("stderr") == "to stderr\n"
    events = node.events(submission)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    states = [event["state"] for event in events]
    assert [state for state in states if state != "running"] == [
        "accepted",
        "launched",
        "queued",
        "succeeded",
    ]
    last = events[-1]
    assert last["execution_id"] == chain.uuid
    assert last["result"]["exit_code"] == 0
    assert last["image"] == {
        "reference": f"localhost/byoc/demo@{node.digest}",
        "digest": node.digest,
    }
    assert last["result"]["image_digest"] == node.digest
    assert last["result"]["outputs"][0]["name"] == "deep/result.txt"
    assert last["scheduler"]["name"] == f"byoc-{submission}-1"
    assert last["timings"]["accepted"] <= last["timings"]["started"] <= last["timings"]["ended"]


def test_a_job_runs_in_every_runtime_alike(node: Any, runtime: str) -> None:
    """The policy chooses; inputs, outputs and events do not change."""
    submission = node.accept("sh", "-c", COMPUTE, workload=RESULT, runtime=runtime)

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    assert chain.outputs.outputs.base.repository.get_object_content("deep/result.txt") == "42\n"
    assert node.states(submission)[-1] == "succeeded"


def test_the_container_sees_nothing_of_the_machine(node: Any) -> None:
    """No network but loopback, no Slurm variables, a read-only root, its own processes, no capabilities."""
    probe = (
        "import json,os,pathlib,socket\n"
        "def denied(action):\n"
        "    try: action()\n"
        "    except OSError: return True\n"
        "    return False\n"
        "status=dict(l.split(':',1) for l in open('/proc/self/status') if ':' in l)\n"
        "pathlib.Path('report.json').write_text(json.dumps({\n"
        "  'interfaces':[n for _,n in socket.if_nameindex()],\n"
        "  'slurm':[n for n in os.environ if n.startswith('SLURM')],\n"
        "  'read_only':denied(lambda: open('/etc/new','w')),\n"
        "  'processes':len([p for p in os.listdir('/proc') if p.isdigit()]),\n"
        "  'capabilities':int(status['CapEff'],16),\n"
        "  'no_new_privileges':int(status['NoNewPrivs']),\n"
        "  'environment':os.environ.get('GREETING'),\n"
        "}))\n"
    )
    workload = {
        "inputs": [{"name": "probe.py", "text": probe}],
        "outputs": [{"name": "report.json"}],
        "env": {"GREETING": "hello; $(id)"},
    }

    chain = node.run(node.accept("python3", "probe.py", workload=workload))

    content = chain.outputs.outputs.base.repository.get_object_content("report.json")
    report = json.loads(content)
    assert report.pop("processes") <= 3
    assert report == {
        "interfaces": ["lo"],
        "slurm": [],
        "read_only": True,
        "capabilities": 0,
        "no_new_privileges": 1,
        "environment": "hello; $(id)",
    }


def test_client_strings_reach_the_program_literally(node: Any) -> None:
    """What a shell, a format string or a batch system could read means nothing to them."""
    hostile = [
        "{}",
        "{x}",
        "$(id)",
        "`id`",
        "'; id; '",
        '"',
        "%s",
        "<",
        ">",
        "|",
        "#SBATCH --mem=1",
        "  ",
        "",
    ]
    program = "import sys,json; json.dump(sys.argv[1:], open('argv.json','w'))"
    submission = node.accept(
        "python3", "-c", program, *hostile, workload={"outputs": [{"name": "argv.json"}]}
    )

    chain = node.run(submission)

    content = chain.outputs.outputs.base.repository.get_object_content("argv.json")
    assert json.loads(content) == hostile


def test_a_failing_program_fails_the_job_with_its_exit_code(node: Any) -> None:
    """The event names the exit status; the work chain has the attempt's exit code."""
    submission = node.accept("sh", "-c", "exit 3")

    chain = node.run(submission)

    assert chain.exit_code.status == 400
    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"]) == ("failed", "container_failed")
    assert last["result"]["exit_code"] == 3
    assert "3" in last["error"]["message"]


def test_a_missing_program_says_so(node: Any) -> None:
    """Exit status 1 of the runtime is not taken for the program's."""
    submission = node.accept("no-such-program")

    node.run(submission)

    error = node.events(submission)[-1]["error"]
    assert error["code"] == "container_not_started"
    assert "no-such-program" in error["message"]


def test_a_missing_output_fails_the_job(node: Any) -> None:
    """What was promised and is not there is named."""
    submission = node.accept("true", workload={"outputs": [{"name": "never"}]})

    node.run(submission)

    error = node.events(submission)[-1]["error"]
    assert (error["code"], "never" in error["message"]) == ("output_missing", True)


def test_an_output_that_leaves_the_directory_is_missing(node: Any) -> None:
    """A link to a file of the machine is neither read nor kept."""
    submission = node.accept(
        "sh", "-c", "ln -s /etc/passwd stolen", workload={"outputs": [{"name": "stolen"}]}
    )

    chain = node.run(submission)

    assert node.events(submission)[-1]["error"]["code"] == "output_missing"
    assert "outputs" not in chain.outputs


def test_a_lost_node_starts_another_attempt_if_asked(
    node: Any, cluster: slurm.Slurm, scontrol: Callable[..., str]
) -> None:
    """Each attempt is one ContainerJob and one Slurm job; the second is told as `queued` with attempt 2."""
    submission = node.accept("sleep", "2", retry_policy={"max_attempts": 2, "on": ["node_fail"]})
    pk = node.launch(submission)
    process = node.load(pk)
    running = node.runner.loop.create_task(process.step_until_terminated())

    def event() -> dict[str, Any]:
        node.runner.loop.run_until_complete(pause_briefly())
        return node.events(submission)[-1]  # type: ignore[no-any-return]

    first = wait_until(
        lambda: (seen := event())["state"] == "running" and seen, 30, "the first attempt to run"
    )
    scontrol("update", f"nodename={first['scheduler']['nodes'][0]}", "state=down", "reason=test")
    try:
        node.runner.loop.run_until_complete(running)
    finally:
        scontrol("update", f"nodename={first['scheduler']['nodes'][0]}", "state=resume")

    attempts = [(event["state"], event["attempt"]) for event in node.events(submission)]
    assert ("running", 1) in attempts
    assert ("queued", 2) in attempts
    assert attempts[-1] == ("succeeded", 2)
    assert attempts.index(("queued", 2)) > attempts.index(("running", 1))


def test_a_job_that_takes_too_much_memory_is_told_so(node: Any) -> None:
    """Also where Slurm has no cgroups and calls it merely FAILED."""
    hog = "import time; block = bytearray(400 * 2**20); time.sleep(20)"
    submission = node.accept(
        "python3", "-c", hog, resource_shape={"cpu": 1, "memory_mib": 100, "walltime_seconds": 60}
    )

    node.run(submission)

    assert node.events(submission)[-1]["error"]["code"] == "oom"


def test_a_job_that_an_administrator_cancels_is_told_so(
    node: Any, scontrol: Callable[..., str]
) -> None:
    """Nobody asked the node for it: the job failed, and may be submitted again."""
    submission = node.accept("sleep", "60")
    process = node.load(node.launch(submission))
    running = node.runner.loop.create_task(process.step_until_terminated())

    def slurm_job() -> str | None:
        node.runner.loop.run_until_complete(pause_briefly())
        last = node.events(submission)[-1]
        return last["scheduler"]["job_id"] if last["state"] == "running" else None

    job_id = wait_until(slurm_job, 30, "the job to run")
    subprocess.run(["scancel", str(job_id)], check=True)
    node.runner.loop.run_until_complete(running)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"], last["error"]["retryable"]) == (
        "failed",
        "killed",
        True,
    )


async def pause_briefly() -> None:
    """Let AiiDA's loop work."""
    import asyncio

    await asyncio.sleep(0.05)


@pytest.mark.parametrize(("runtime", "memory"), [("bubblewrap", "300M"), ("podman", "460M")])
def test_slurm_runs_what_was_asked_for(
    node: Any, scontrol: Callable[..., str], runtime: str, memory: str
) -> None:
    """Limits and name are read back from Slurm, not from our script; the runtime's own processes have room too."""
    submission = node.accept(
        "true",
        resource_shape={"cpu": 2, "memory_mib": 300, "walltime_seconds": 3600},
        runtime=runtime,
    )

    node.run(submission)

    job_id = node.events(submission)[-1]["scheduler"]["job_id"]
    shown = scontrol("show", "job", job_id)
    fields = dict(field.split("=", 1) for field in shown.split() if "=" in field)
    assert fields["JobName"] == f"byoc-{submission}-1"
    assert fields["MinMemoryNode"] == memory
    assert fields["CPUs/Task"] == "2"
    assert fields["TimeLimit"] == "01:00:00"
    assert fields["Partition"] == "main"
    assert subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout == b""
