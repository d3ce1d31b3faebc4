"""I24: the job script, from the command to Slurm. Whatever a client writes, it is the same script; what Slurm grants is
what was asked for, whatever the daemon's environment says."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida.common.folders import SandboxFolder
from aiida.engine.utils import instantiate_process
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.fetched import FetchedFiles
from aiida_byoc.workflows.attempt import attempt_inputs
from aiida_byoc.workflows.recovery import ask
from tests.engine.driving import Underway, run

SCRIPT = "_aiidasubmit.sh"
SUBMISSION = str(uuid.uuid4())
NASTY = [
    "$(touch broken)",
    "`touch broken`",
    "'; touch broken; '",
    '"; touch broken; "',
    "\\",
    "{}",
    "{status_fd}",
    "%j",
    "~",
    "a b",
    "#SBATCH --mem=1",
    "é",
    "\u202e",
    "--export=ALL",
]
words = st.sampled_from(NASTY) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])
)
names = words.filter(lambda word: 0 < len(word) < 100)


def command(job_id: str = "job-1", **workload: Any) -> SubmitJobCommand:
    """A command as the ledger has it."""
    return validated(
        SubmitJobCommand,
        {
            "schema_version": "1",
            "tenant_id": "acme",
            "workspace_id": "w",
            "job_id": job_id,
            "management_node_id": "engine-node",
            "execution_profile": {"queue_name": "main"},
            "resource_shape": {"cpu": 2, "memory_mib": 300, "walltime_seconds": 3600},
            "workload": {
                "kind": "container",
                "image": "localhost/byoc/demo:1",
                "argv": ["true"],
                **workload,
            },
            "requested_by": {"user_id": "u"},
        },
    )


def inputs_of(node: Any, command: SubmitJobCommand) -> dict[str, Any]:
    """The inputs of the command's first attempt."""
    placement = Placement(partition="main", image_digest="sha256:" + "0" * 64, runtime="bubblewrap")
    return attempt_inputs(
        command,
        placement,
        ask(command, placement, []),
        [],
        submission_id=SUBMISSION,
        rootfs="/images/x",
        image_env={},
        given={},
        fetched=FetchedFiles(Path("/nowhere")),
        code=node.settings.code,
    )


def staged(node: Any, command: SubmitJobCommand) -> tuple[str, dict[str, Any], set[str]]:
    """What AiiDA uploads for the command: the script, the specification, and the names of all files."""
    inputs = inputs_of(node, command)
    inputs["metadata"] |= {"dry_run": True, "store_provenance": False}
    attempt = instantiate_process(node.runner, ContainerJob, **inputs)
    with SandboxFolder() as folder:
        attempt.presubmit(folder)
        place = Path(folder.abspath)
        return (
            (place / SCRIPT).read_text(),
            json.loads((place / in_job.SPECIFICATION).read_text()),
            {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()},
        )


workloads = st.fixed_dictionaries(
    {
        "argv": st.lists(words, min_size=1, max_size=4),
        "env": st.dictionaries(
            st.from_regex("[A-Z][A-Z0-9_]{0,8}", fullmatch=True), words, max_size=3
        ),
        "inputs": st.lists(st.fixed_dictionaries({"name": names, "text": words}), max_size=3),
        "outputs": st.lists(st.fixed_dictionaries({"name": names}), max_size=3),
    }
)
NASTIEST = {
    "argv": NASTY,
    "env": {"A": "$(id)"},
    "inputs": [{"name": name, "text": name} for name in NASTY[:4]],
    "outputs": [{"name": name} for name in NASTY[:4]],
}


@pytest.fixture(scope="module")
def template(node: Any) -> str:
    """The script of a job that does nothing."""
    script = staged(node, command())[0]
    assert "exec " in script
    return script


@settings(max_examples=20)
@given(workload=workloads, job_id=st.from_regex("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True))
@example(workload=NASTIEST, job_id="x")
def test_i24_no_word_of_a_client_is_in_the_script(
    node: Any, template: str, workload: dict[str, Any], job_id: str
) -> None:
    """It is the same byte for byte as for any other job of that shape; what was asked travels in a file."""
    try:
        hostile = command(job_id, **workload)
    except ProblemError:
        return  # the contract refuses it

    script, specification, files = staged(node, hostile)

    assert script == template
    assert specification["argv"] == workload["argv"]
    assert specification["env"].items() >= workload["env"].items()
    assert [output["name"] for output in specification["outputs"]] == [
        output["name"] for output in workload["outputs"]
    ]
    inputs = {f"{in_job.WORK}/{file['name']}" for file in workload["inputs"]}
    assert {name for name in files if not name.startswith((".aiida/", f"{in_job.PROGRAM}/"))} == {
        SCRIPT,
        in_job.SPECIFICATION,
        *inputs,
    }


def test_i24_the_script_is_one_command_to_bash(template: str) -> None:
    subprocess.run(["bash", "-n"], input=template, text=True, check=True)
    lines = [line for line in template.splitlines() if line and not line.startswith("#")]
    assert lines == [
        (
            "exec '/usr/bin/python3' '-E' '-s' '-S' '-c' "
            "'from byoc_in_job.__main__ import main; main()'  > 'stdout' 2> 'stderr'"
        )
    ]


@pytest.mark.parametrize(
    "option",
    [
        {"prepend_text": "id"},
        {"append_text": "id"},
        {"environment_variables": {"A": "$(id)"}},
        {"environment_variables_double_quotes": True},
        {"additional_retrieve_list": ["../../secret"]},
        {"additional_retrieve": ["../../secret"]},
        {"mpirun_extra_params": ["--x"]},
        {"filename_stdin": "/etc/passwd"},
    ],
)
def test_aiidas_raw_places_are_closed(node: Any, option: dict[str, Any]) -> None:
    inputs = inputs_of(node, command())
    inputs["metadata"]["options"] |= option

    with pytest.raises(ValueError, match=next(iter(option))):
        instantiate_process(node.runner, ContainerJob, **inputs)


HOSTILE_ENVIRONMENT = {
    "SBATCH_ACCOUNT": "theirs",
    "SBATCH_EXCLUSIVE": "",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_GET_USER_ENV": "1",
    "SBATCH_HINT": "nomultithread",
    "SBATCH_JOB_NAME": "theirs",
    "SBATCH_MEM_PER_NODE": "9999",
    "SBATCH_PARTITION": "high",
    "SBATCH_REQUEUE": "1",
    "SBATCH_TIMELIMIT": "7",
    "SCANCEL_STATE": "PENDING",
    "SLURM_CLUSTERS": "theirs",
    "SLURM_JOB_ID": "1",
    "SQUEUE_PARTITION": "high",
    "SQUEUE_USERS": "nobody",
    "BYOC_TEST_SECRET": "canary",
}
ECHO = (
    "import json, os, sys; json.dump([sys.argv[1:], os.environ['A'], open(sys.argv[1]).read()],"
    " open(sys.argv[2], 'w')); import time; time.sleep(float(sys.argv[3]))"
)


@pytest.mark.parametrize("words", [NASTY[:5], NASTY[5:]], ids=["shell", "other"])
def test_i24_slurm_grants_what_was_asked_for_whatever_the_environment_says(
    node: Any, scontrol: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A hostile job, a hostile environment of the daemon: limits and name as Slurm shows them."""
    file, kept = "in $(touch broken) é", "out '; touch broken; '"
    submission = node.accept(
        *("python3", "-c", ECHO, file, kept, "1", *words),
        workload={
            "env": {"A": words[0]},
            "inputs": [{"name": file, "text": "".join(words)}],
            "outputs": [{"name": kept}],
        },
        resource_shape={"cpu": 2, "memory_mib": 300, "walltime_seconds": 3600},
    )
    with monkeypatch.context() as daemon:
        for name, value in HOSTILE_ENVIRONMENT.items():
            daemon.setenv(name, value)
        job = Underway(node, submission)
        slurm_job = job.until_state("running")["scheduler"]["job_id"]
        (batch,) = job.until(lambda: below("slurmstepd", slurm_job), "the job to start")
        environment = (batch / "environ").read_text()
        chain = job.finish()

    shown = scontrol("show", "job", slurm_job)
    fields = dict(field.split("=", 1) for field in shown.split() if "=" in field)
    assert {name: fields[name] for name in ASKED} == {**ASKED, "JobName": job.name}
    assert chain.is_finished_ok, chain.exit_message
    said = json.loads(chain.outputs.outputs.base.repository.get_object_content(kept))
    assert said == [[file, kept, "1", *words], words[0], "".join(words)]
    assert not list(job.directory.rglob("broken"))
    seen = {line.partition("=")[0] for line in environment.split("\0") if line}
    assert not seen & (HOSTILE_ENVIRONMENT.keys() - {"SLURM_JOB_ID"})
    assert not {name for name in seen if name.startswith(("SBATCH_", "BYOC", "AIIDA", "PYTEST"))}


ASKED = {
    "JobName": "",
    "Partition": "main",
    "Account": "(null)",
    "QOS": "(null)",
    "TimeLimit": "01:00:00",
    "MinMemoryNode": "300M",
    "NumNodes": "1",
    "NumCPUs": "2",
    "NumTasks": "1",
    "CPUs/Task": "2",
    "Requeue": "0",
    "OverSubscribe": "OK",
}


def test_a_queue_that_is_no_word_is_refused_before_slurm_is_asked(node: Any) -> None:
    """The owner's policy admits none; should one get past it, the job fails for good, and says which part it was."""
    submission = node.accept(placed={"partition": "main\n#SBATCH --mem=1\ntouch broken"})

    node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"]) == ("failed", "scheduler_refused")
    assert not last["error"]["retryable"]
    assert "queue_name" in last["error"]["message"]
    assert run("squeue", "--noheader", "--states=all", f"--name=byoc-{submission}-1") == ""


def test_the_batch_script_becomes_the_program(node: Any) -> None:
    """What Slurm signals when it signals the batch shell is the program of the job."""
    job = Underway(node, node.accept("sleep", "60"))
    slurm_job = job.until_state("running")["scheduler"]["job_id"]

    (batch,) = job.until(lambda: below("slurmstepd", slurm_job), "the job to start")
    program = (batch / "cmdline").read_text().split("\0")[:-1]
    job.stop()

    assert program == ["/usr/bin/python3", *in_job.START]


def below(parent: str, slurm_job: str) -> list[Path]:
    """The job's processes whose parent is that program, once none of them is a shell."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_JOB_ID={slurm_job}\0" not in (process / "environ").read_text():
                continue
            above = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if (process.parent / above / "comm").read_text().strip() == parent:
                found.append(process)
        except OSError:
            continue
    shells = [process for process in found if "bash" in (process / "cmdline").read_text()]
    return [] if shells else found
