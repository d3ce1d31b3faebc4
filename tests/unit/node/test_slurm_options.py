"""I24: whatever a job holds, its script is the template, and Slurm is asked for what was meant, or nothing at all."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from aiida.common.datastructures import CodeRunMode
from aiida.engine import ExitCode
from aiida.schedulers.datastructures import JobTemplate, JobTemplateCodeInfo
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aiida_byoc.runtimes.in_job import START, packed
from aiida_byoc.schedulers.options import job_directives
from aiida_byoc.schedulers.slurm import REFUSED, ByocSlurmScheduler
from aiida_byoc.schedulers.witnesses import look_command
from tests.unit.node.fake_slurm import SCRIPT, FakeSlurm

OPTIONS = [
    "--no-requeue",
    "--output=_scheduler-stdout.txt",
    "--error=_scheduler-stderr.txt",
    "--partition=main",
    "--account=proj42",
    "--qos=high",
    "--nodes=1",
    "--ntasks-per-node=1",
    "--cpus-per-task=2",
    "--time=1-00:00:05",
    "--mem=128",
    "--job-name=b-0123-1",
    "--dependency=singleton",
    "--gres=gpu:a100:1",
    "--tmp=1024",
    "--exclude=n1,gpu-2.site",
    "--signal=B:TERM@60",
]
HEADER = "\n".join(f"#SBATCH {option}" for option in OPTIONS)
RUN = f"exec {shlex.join(['/usr/bin/python3', *START])} > stdout 2> stderr"

SHELL = list("$`'\"\\;&|<>(){}[]*?!#~=%,:@/-+. \n\r\t\x00\x1b\u2028é")
hostile = st.text(
    st.one_of(st.sampled_from(SHELL), st.characters(codec="utf-8")), max_size=40
) | st.sampled_from(
    [
        "main\nrm -rf ~",
        "main\n#SBATCH --mem=1",
        "main\n#SBATCH --tmp=1",
        "main --mem=1",
        "main\r#SBATCH --mem=1",
        "$(touch broken)",
        "`touch broken`",
        "main#",
        "--wrap=id",
        "",
    ]
)


def template(**changes: Any) -> JobTemplate:
    """A `ContainerJob` as AiiDA describes it to a scheduler."""
    job = JobTemplate()
    job.job_name = "aiida-12"
    job.sched_output_path, job.sched_error_path = "_scheduler-stdout.txt", "_scheduler-stderr.txt"
    job.queue_name, job.account, job.qos = "main", "proj42", "high"
    job.job_resource = ByocSlurmScheduler.create_job_resource(
        num_machines=1, num_mpiprocs_per_machine=1, num_cores_per_mpiproc=2
    )
    job.max_wallclock_seconds, job.max_memory_kb = 86405, 128 * 1024
    job.custom_scheduler_commands = job_directives(
        "b-0123-1",
        gres="gpu:a100:1",
        scratch_mib=1024,
        exclude=["n1", "gpu-2.site"],
        warning=("TERM", 60),
    )
    job.codes_info, job.codes_run_mode = [code()], CodeRunMode.SERIAL
    for name, change in changes.items():
        job[name] = change
    return job


def code(**changes: Any) -> JobTemplateCodeInfo:
    info = JobTemplateCodeInfo()
    info.cmdline_params = ["/usr/bin/python3", *START]
    info.use_double_quotes, info.wrap_cmdline_params, info.join_files = [False, False], False, False
    info.prepend_cmdline_params = []
    info.stdout_name, info.stderr_name = "stdout", "stderr"
    for name, change in changes.items():
        setattr(info, name, change)
    return info


def script(job: JobTemplate) -> str:
    return str(ByocSlurmScheduler().get_submit_script(job))


def submission(text: str) -> tuple[list[str], Any]:
    """Submit a script to a Slurm that takes everything; return what that was asked, and the answer."""
    with tempfile.TemporaryDirectory() as directory:
        slurm = FakeSlurm(Path(directory))
        slurm.answer("squeue", "")
        slurm.answer("sacct", "exit 1")
        slurm.answer("sbatch", 'echo "Submitted batch job 99"')
        (slurm.directory / SCRIPT).write_text(text)
        (slurm.directory / "byoc_job.json").write_text("{}")
        said = slurm.submit()
        assert not (slurm.directory / "broken").exists()
        scheduler = ByocSlurmScheduler()
        answer = scheduler._parse_submit_output(said.returncode, said.stdout, said.stderr)
        return slurm.asked, answer


def sbatch(*options: str) -> str:
    """The call of `sbatch` that asks for these."""
    return " ".join(["sbatch", "--export=ALL", *options, SCRIPT])


def test_the_script_asks_for_what_was_meant_and_becomes_the_program() -> None:
    text = script(template())

    assert shlex.split(text, comments=True) == shlex.split(RUN)
    assert [line for line in text.splitlines() if line] == [
        "#!/bin/sh",
        *HEADER.splitlines(),
        (
            "exec '/usr/bin/python3' '-E' '-s' '-S' '-c' "
            "'from byoc_in_job.__main__ import main; main()'  > 'stdout' 2> 'stderr'"
        ),
    ]


def test_an_element_of_an_array_needs_no_shell() -> None:
    """The shell would be a tenth of what there is to do before a short task begins."""
    element = code(
        cmdline_params=["/usr/bin/python3", *packed.START], stdout_name=None, stderr_name=None
    )
    header = job_directives("b-0123-1", array=(3, None))

    text = script(template(codes_info=[element], custom_scheduler_commands=header))

    first, *rest = text.splitlines()
    assert first == "#!/usr/bin/python3 -EsS"
    assert header in text
    assert "\n".join(rest).endswith("\n\n" + packed.START[-1])
    compile(text, "script", "exec")
    asked, _ = submission(text)
    assert "--array=0-2" in asked[-1]

    for beside in ({"prepend_text": "umask 077"}, {"job_environment": {"A": "1"}}):
        another = script(template(codes_info=[element], **beside))
        assert another.splitlines()[0].endswith("sh")
        assert shlex.split(another, comments=True)[-len(packed.START) :] == [*packed.START]


@pytest.mark.parametrize(
    ("changes", "shell"),
    [
        ({"prepend_text": "shopt -s extglob"}, "#!/bin/bash"),
        ({"shebang": "#!/bin/bash -l"}, "#!/bin/bash -l"),
        ({"codes_info": [code(cmdline_params=["true"])]}, "#!/bin/bash"),
    ],
)
def test_another_script_has_the_shell_it_is_for(changes: dict[str, Any], shell: str) -> None:
    assert script(template(**changes)).splitlines()[0] == shell


def test_the_header_is_what_sbatch_is_asked_for() -> None:
    asked, answer = submission(script(template()))

    assert (asked[-1], answer) == (sbatch(*OPTIONS), "99/b-0123-1")


@pytest.mark.parametrize(
    "line",
    ["#SBATCH --mem=1", "#SBATCH --wrap=id", "touch broken; #SBATCH --mem=1", "#SBATCH --mem=1\n"],
)
def test_what_follows_the_header_is_not_asked_for_by_us(line: str) -> None:
    """A computer's own directives stand there: `sbatch` reads them, and ours are before them."""
    asked, answer = submission(script(template(prepend_text=line)))

    assert (asked[-1], answer) == (sbatch(*OPTIONS), "99/b-0123-1")


def test_another_plugins_job_gets_a_name_of_its_directory() -> None:
    """Its own, `aiida-<pk>`, may be another profile's as well."""
    asked, answer = submission(script(template(custom_scheduler_commands="")))

    name = re.search(r"--job-name=(aiida-[0-9]+-[0-9a-f]{16}) ", asked[-1])
    assert name is not None
    assert answer == f"99/{name[1]}"


@settings(max_examples=30)
@given(
    field=st.sampled_from(
        ["queue_name", "account", "qos", "custom_scheduler_commands", "sched_output_path", "email"]
    ),
    value=hostile,
)
@example(field="queue_name", value="main\n#SBATCH --tmp=1")
@example(field="custom_scheduler_commands", value="#SBATCH --job-name=$(touch broken)")
@example(field="custom_scheduler_commands", value="#SBATCH --job-name=b-1\ntouch broken")
@example(field="custom_scheduler_commands", value="#SBATCH --job-name=b-1\n\ntouch broken")
@example(field="custom_scheduler_commands", value="#SBATCH --job-name=b-1\n#SBATCH --mem=9")
@example(field="custom_scheduler_commands", value="#SBATCH --job-name=b-1 --mem=9")
def test_i24_hostile_words_are_refused_for_good(field: str, value: str) -> None:
    """Or they are words, and stand where they belong; the shell never reads them."""
    assume(value or field != "custom_scheduler_commands")
    text = script(template(**{field: value}))
    asked, answer = submission(text)

    if isinstance(answer, ExitCode):
        assert (answer.status, asked) == (REFUSED, [])
        return
    assert shlex.split(text, comments=True) == shlex.split(RUN)
    replaced = {"queue_name": "partition", "sched_output_path": "output"}.get(field, field)
    expected = [
        f"--{replaced}={value}" if option.startswith(f"--{replaced}=") else option
        for option in OPTIONS
        if value or not option.startswith(f"--{replaced}=")
    ]
    assert asked[-1] == sbatch(*expected)


@settings(max_examples=30)
@given(text=hostile)
def test_i24_a_script_that_somebody_changed_asks_for_nothing_else(text: str) -> None:
    """The submit command reads the header that is there, not the one that was written."""
    before, _, rest = script(template()).partition("#SBATCH --mem")
    asked, answer = submission(f"{before}#SBATCH --partition={text}\n#SBATCH --mem{rest}")

    if isinstance(answer, ExitCode):
        assert (answer.status, asked) == (REFUSED, [])
    else:
        assert answer == "99/b-0123-1"


@settings(max_examples=30)
@given(
    argv=st.lists(hostile.filter(lambda word: "\x00" not in word), max_size=4),
    env=st.dictionaries(hostile, hostile.filter(lambda word: "\x00" not in word), max_size=3),
    stdin=hostile.filter(lambda word: "\x00" not in word),
)
def test_i24_other_jobs_words_are_literals(
    argv: list[str], env: dict[str, str], stdin: str
) -> None:
    """Any approved calculation may run here; its arguments, files and variables are the client's as well."""
    job = template(
        job_environment=env,
        codes_info=[code(cmdline_params=["printf", "%s\\0", *argv], stdin_name=stdin or None)],
    )

    text = script(job)

    checked = subprocess.run(["bash", "-n"], input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    if text.count("\n") == 2:
        assert text == "#!/bin/bash\n#SBATCH environment_variables\n"
        return
    words = shlex.split(text.partition("\n\n")[2], comments=True)
    redirected = ["<", stdin] if stdin else []
    expected = [word for name, value in env.items() for word in ("export", f"{name}={value}")]
    assert words == [
        *expected,
        "printf",
        "%s\\0",
        *argv,
        *redirected,
        ">",
        "stdout",
        "2>",
        "stderr",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"job_environment": {"A B": "x"}}, "environment_variables"),
        ({"job_environment": {"A;id;": "x"}}, "environment_variables"),
        (
            {"job_environment": {"A": "$(id)"}, "environment_variables_double_quotes": True},
            "environment_variables_double_quotes",
        ),
        ({"codes_info": [code(wrap_cmdline_params=True)]}, "a command line that the shell expands"),
        (
            {"codes_info": [code(use_double_quotes=[False, True])]},
            "a command line that the shell expands",
        ),
        (
            {"codes_info": [code(use_double_quotes=[True, False])]},
            "a command line that the shell expands",
        ),
        ({"queue_name": "main;id"}, "partition"),
        ({"queue_name": "main\n"}, "queue_name"),
        ({"account": "-x"}, "account"),
        ({"qos": "ä"}, "qos"),
        ({"max_memory_kb": 1}, "mem"),
        ({"custom_scheduler_commands": "#SBATCH --uid=0"}, "custom_scheduler_commands"),
    ],
)
def test_what_is_not_asked_for_is_named(changes: dict[str, Any], named: str) -> None:
    """Never its value."""
    asked, answer = submission(script(template(**changes)))

    assert isinstance(answer, ExitCode)
    assert (answer.status, asked) == (REFUSED, [])
    assert answer.message == f"Slurm refused the job: byoc: sbatch is not asked for {named}"


HOSTILE_ENVIRONMENT = {
    "SBATCH_PARTITION": "other",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_PARTITION": "other",
    "SQUEUE_STATES": "FAILED",
    "SCANCEL_STATE": "PENDING",
    "SACCT_FEDERATION": "1",
    "SLURM_CLUSTERS": "other",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_JOB_ID": "7",
    "SECRET": "canary",
    "LD_PRELOAD": "",
}


@pytest.mark.parametrize("name", ["submit", "joblist", "kill", "details", "look"])
def test_i24_the_daemons_environment_reaches_no_command_of_slurm(tmp_path: Path, name: str) -> None:
    """What finds the cluster and its programs does."""
    slurm, scheduler = FakeSlurm(tmp_path), ByocSlurmScheduler()
    for program in ("squeue", "sacct", "sbatch", "scancel", "scontrol"):
        slurm.answer(program, 'env >> "$LOG"; exit 1')
    (tmp_path / SCRIPT).write_text(script(template()))
    command = {
        "submit": scheduler._get_submit_command(SCRIPT),
        "joblist": scheduler._get_joblist_command(jobs=["17/b-1"]),
        "kill": scheduler._get_kill_command("17/b-1"),
        "details": scheduler._get_detailed_job_info_command("17/b-1"),
        "look": look_command({"b-1": str(tmp_path)}),
    }[name]
    kept = {"SLURM_CONF": "/a 'b'/slurm.conf", "HOME": "/home/$(id)", "SLURM_JWT": "x y"}

    if name == "submit":
        slurm.answer("squeue", "")
    slurm.run(command, **HOSTILE_ENVIRONMENT, **kept)

    seen = dict(
        line.split("=", 1) for line in slurm.asked if "=" in line and " " not in line.split("=")[0]
    )
    assert {key: seen.get(key) for key in kept} == kept
    assert set(seen) - {*kept, "PATH", "SHELL", "SLURM_TIME_FORMAT", "PWD", "SHLVL", "_"} == set()
    assert seen.get("SLURM_TIME_FORMAT", "standard") == "standard"
