"""An array is one job to the node, whatever its elements do. The samples are of Slurm 22.05, shortened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiida.schedulers.datastructures import JobState

from aiida_byoc.runtimes.in_job import ARRAY_COUNT, ELEMENTS, ENDED
from aiida_byoc.schedulers.elements import folded
from aiida_byoc.schedulers.ending import ending, ending_command
from aiida_byoc.schedulers.options import GRAMMAR, job_directives
from aiida_byoc.schedulers.slurm import ByocSlurmScheduler
from aiida_byoc.schedulers.verdict import Finding, judge
from aiida_byoc.schedulers.witnesses import Evidence, evidence, look_command
from tests.unit.node.fake_slurm import FakeSlurm
from tests.unit.node.test_slurm_states import line

SHOWN = (
    "JobId={} ArrayJobId=17 ArrayTaskId={} JobName=b-1 UserId={}(1000) JobState={} Reason=None"
    " Restarts=0 ExitCode={} Partition=main NodeList=n1"
)


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    fake.answer("squeue", "exit 0")
    fake.answer("sacct", "exit 1")
    return fake


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of an array of two elements."""
    place = tmp_path / "array"
    (place / ELEMENTS).mkdir(parents=True)
    (place / ARRAY_COUNT).write_text("2\n")
    (place / "byoc_job.json").write_text("{}")
    return place


def look(slurm: FakeSlurm, place: Path) -> Evidence:
    return evidence(slurm.run(look_command({"b-1": str(place)})).stdout)["b-1"]


def end(place: Path, number: int) -> None:
    (place / ELEMENTS / str(number)).mkdir()
    (place / ELEMENTS / str(number) / ENDED).touch()


@pytest.mark.parametrize(
    ("states", "together"),
    [
        (["COMPLETED", "RUNNING", "PENDING"], "RUNNING"),
        (["PENDING", "FAILED"], "PENDING"),
        (["FAILED", "PENDING"], "PENDING"),
        (["COMPLETED", "COMPLETED"], "COMPLETED"),
        (["COMPLETED", "TIMEOUT"], "TIMEOUT"),
        (["TIMEOUT", "COMPLETED"], "TIMEOUT"),
    ],
)
def test_an_array_goes_on_while_an_element_does(
    slurm: FakeSlurm, place: Path, states: list[str], together: str
) -> None:
    slurm.answer("squeue", "\n".join(f"echo '17 {state} b-1 None'" for state in states))
    assert look(slurm, place).jobs == {"17": together}

    slurm.answer("squeue", "exit 0")
    accounts = [f"echo '17_{number}|{state}|n1'" for number, state in enumerate(states)]
    slurm.answer("sacct", "\n".join(accounts))
    assert look(slurm, place).accounts == {"17": together}


def test_elements_in_one_state_are_one_line(slurm: FakeSlurm, place: Path) -> None:
    """The shell reads each line by itself, and there may be ten thousand."""
    states = ["COMPLETED", "RUNNING", "COMPLETED", "PENDING", "RUNNING"]
    slurm.answer("squeue", "\n".join(f"echo '17 {state} b-1 None'" for state in states))

    said = slurm.run(look_command({"b-1": str(place)})).stdout.splitlines()

    jobs = ["job 17 COMPLETED b-1", "job 17 RUNNING b-1", "job 17 PENDING b-1"]
    assert [each for each in said if each.startswith("job ")] == jobs


def test_the_record_of_an_array_is_that_of_all_its_elements(slurm: FakeSlurm, place: Path) -> None:
    assert (look(slurm, place).record, look(slurm, place).is_array) == (False, True)
    end(place, 0)
    assert not look(slurm, place).record
    end(place, 1)
    assert look(slurm, place).record


def test_slurm_may_have_forgotten_the_elements_that_failed() -> None:
    """It ended before the others by more than MinJobAge: Slurm knows those, and that none goes on."""
    seen = Evidence(
        controller=True,
        jobs={"17": "COMPLETED"},
        accounts={},
        directory=True,
        fence="17",
        record=False,
        is_array=True,
    )

    assert judge(seen, doubted=0, walltime=60).finding is Finding.ENDED


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (["R", "PD"], JobState.RUNNING),
        (["PD", "R"], JobState.RUNNING),
        (["PD", "PD"], JobState.QUEUED),
        (["CD", "PD"], JobState.RUNNING),
        (["PD", "CD"], JobState.RUNNING),
        (["CD", "F"], JobState.DONE),
        (["F", "R"], JobState.RUNNING),
    ],
)
def test_the_queue_shows_one_job(states: list[str], shown: JobState) -> None:
    ids = ["17_0", "17_[1-9%2]"]
    said = "\n".join(line(job, state) for job, state in zip(ids, states, strict=True))

    jobs = ByocSlurmScheduler()._parse_joblist_output(0, said, "")

    assert [(job.job_id, job.job_state) for job in jobs] == [("17/b-0123-1", shown)]


def test_elements_in_one_state_are_read_once() -> None:
    said = [line(f"17_{number}", "CD") for number in range(1000)]
    said += [line("17_[1000-1999%8]", "PD", "JobArrayTaskLimit"), line("18", "R"), line("19", "R")]
    said += [line(f"17_{number}", "R") for number in range(2000, 2008)]

    few = folded("\n".join(said))

    jobs = ByocSlurmScheduler()._parse_joblist_output(0, few, "")
    assert [(job.job_id, job.job_state) for job in jobs] == [
        (f"{job}/b-0123-1", JobState.RUNNING) for job in (17, 18, 19)
    ]
    assert few.splitlines() == [said[0], *said[1000:1004]]


@pytest.mark.parametrize(
    ("states", "gravest"),
    [
        (["COMPLETED", "OUT_OF_MEMORY", "TIMEOUT"], "OUT_OF_MEMORY"),
        (["FAILED", "TIMEOUT", "COMPLETED"], "TIMEOUT"),
        (["COMPLETED", "FAILED"], "FAILED"),
        (["COMPLETED", "COMPLETED"], "COMPLETED"),
    ],
)
def test_the_gravest_end_is_told(slurm: FakeSlurm, states: list[str], gravest: str) -> None:
    lines = [
        SHOWN.format(18 + number, number, "$(id -un)", state, "0:0")
        for number, state in enumerate(states)
    ]
    slurm.answer("scontrol", "\n".join(f'echo "{each}"' for each in lines))
    assert ending(slurm.run(ending_command("17", "b-1")).stdout).state == gravest
    assert ending(slurm.run(ending_command("17", "b-2")).stdout).state is None
    assert ending(slurm.run(ending_command("16", "b-1")).stdout).state is None

    slurm.answer("scontrol", "exit 1")
    slurm.answer("sacct", "\n".join(f"echo '{state}|0:0|n1'" for state in states))
    assert ending(slurm.run(ending_command("17", "b-1")).stdout).state == gravest


FORGOTTEN = """\
case "$*" in
  *hostnames*) echo "ran on ${{@: -1}}" | sed 's/.* //' ;;
  *job*) echo "{shown}" ;;
esac
"""


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL"])
def test_the_gravest_end_may_be_known_to_accounting_alone(slurm: FakeSlurm, state: str) -> None:
    """The controller forgets an element MinJobAge after its end, and the array goes on for hours."""
    shown = SHOWN.format(19, 1, "$(id -un)", "COMPLETED", "0:0")
    slurm.answer("scontrol", FORGOTTEN.format(shown=shown))
    slurm.answer(
        "sacct", f"echo '{state}|0:9|n7|main|17_0|b-1'; echo 'COMPLETED|0:0|n1|main|17_1|b-1'"
    )
    slurm.answer("sinfo", r"""[[ "$*" == *--partition=main\ * ]] && echo n1""")

    seen = ending(slurm.run(ending_command("17", "b-1")).stdout)

    assert seen.state == state
    nodes = (("n7",), ("n1",)) if state == "NODE_FAIL" else ((), ())
    assert (seen.nodes, seen.usable) == nodes


@pytest.mark.parametrize(("by_the_node", "state"), [(True, "FAILED"), (False, "CANCELLED")])
def test_an_element_that_the_node_closed_is_nobodys_end(
    slurm: FakeSlurm, place: Path, by_the_node: bool, state: str
) -> None:
    """All of its tasks were cancelled; what became of the others is another matter."""
    states = ["FAILED", "CANCELLED", "COMPLETED"]
    lines = [
        f"{SHOWN.format(18 + n, n, '$(id -un)', each, '0:0')} StdOut={place}/out of it Power="
        for n, each in enumerate(states)
    ]
    slurm.answer("scontrol", "\n".join(f'echo "{each}"' for each in lines))
    slurm.answer(
        "sacct", "echo 'FAILED|0:9|n7|main|17_0|b-1'; echo 'CANCELLED by 0|0:0|n7|main|17_1|b-1'"
    )
    end(place, 1)
    end(place, 2)
    (place / ELEMENTS / "2" / ENDED).write_text("{}")
    if not by_the_node:
        (place / ELEMENTS / "1" / ENDED).write_text("{}")

    assert ending(slurm.run(ending_command("17", "b-1")).stdout).state == state


@pytest.mark.parametrize(("begun", "state"), [([1], "FAILED"), ([], "CANCELLED")])
def test_the_last_elements_that_waited_have_no_number(
    slurm: FakeSlurm, place: Path, begun: list[int], state: str
) -> None:
    """If each element has a directory, none of them waited but those that the node closed."""
    shown = SHOWN + f" StdOut={place}/out Power="
    lines = [
        shown.format(17, 2**32 - 2, "$(id -un)", "CANCELLED", "0:0"),
        shown.format(18, 1, "$(id -un)", "FAILED", "0:9"),
    ]
    slurm.answer("scontrol", "\n".join(f'echo "{each}"' for each in lines))
    slurm.answer("sacct", "echo 'CANCELLED by 0|0:0|None assigned|main|17_[0,2]|b-1'")
    end(place, 0)
    for number in begun:
        (place / ELEMENTS / str(number)).mkdir()

    assert ending(slurm.run(ending_command("17", "b-1")).stdout).state == state


def test_an_array_that_the_node_closed_as_a_whole_was_cancelled(
    slurm: FakeSlurm, place: Path
) -> None:
    shown = SHOWN.format(18, 0, "$(id -un)", "CANCELLED", "0:0")
    slurm.answer("scontrol", f'echo "{shown} StdOut={place}/out Power="')
    end(place, 0)

    assert ending(slurm.run(ending_command("17", "b-1")).stdout).state == "CANCELLED"


def test_who_cancelled_an_element_is_told_whatever_became_of_the_first(slurm: FakeSlurm) -> None:
    shown = SHOWN.format(19, 1, "$(id -un)", "CANCELLED", "0:15")
    slurm.answer("scontrol", FORGOTTEN.format(shown=shown))
    slurm.answer(
        "sacct", "echo 'COMPLETED|0:0|n1|m|17_0|b-1'; echo 'CANCELLED by 1002|0:15|n1|m|17_1|b-1'"
    )

    assert ending(slurm.run(ending_command("17", "b-1")).stdout).cancelled_by == "1002"


@pytest.mark.parametrize(
    ("array", "asked"), [((20, None), "0-19"), ((20, 4), "0-19%4"), ((1, 4), "0-0")]
)
def test_an_array_is_asked_for(array: tuple[int, int | None], asked: str) -> None:
    directives = job_directives("b-1", array=array).split("\n")

    assert f"#SBATCH --array={asked}" in directives
    assert not [each for each in directives if "singleton" in each]
    assert all(re.fullmatch(GRAMMAR, each) for each in directives)
