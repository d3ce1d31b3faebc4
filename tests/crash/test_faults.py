"""Parts die, wires fail, `sbatch` lies, the controller forgets: nothing is lost, nothing is doubled, all in order."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import psycopg
import pytest

from lab import accounting, postgres, process, rabbitmq
from lab.chaos.arena import Arena
from lab.chaos.load import Load
from lab.chaos.parts import WORKER
from lab.chaos.proxy import Fault, Rule
from lab.proctable import belonging
from tests.eventually import eventually

QUIET_SECONDS = 240
SOON_SECONDS = 120
FROZEN_SECONDS = 60
FORGOTTEN_SECONDS = 60
"""A job that was forgotten while it ran stays held for longer than any test waits."""

MOMENTS = [
    ("adapter", Fault.DROP, "/jobs$", b""),
    ("adapter", Fault.LOSE_ANSWER, "/jobs$", b""),
    ("adapter", Fault.DROP, "/poll$", b'"verdicts":[{'),
    ("adapter", Fault.LOSE_ANSWER, "/poll$", b'"verdicts":[{'),
    ("adapter", Fault.DROP, "/events$", b""),
    ("adapter", Fault.LOSE_ANSWER, "/events$", b""),
    ("convex", Fault.DROP, "/mutation$", b""),
    ("convex", Fault.LOSE_ANSWER, "/mutation$", b""),
]
"""Wire, side of the moment (before it is carried out, before its answer has left), request and what it carries."""


def _dies(name: str) -> Callable[[Arena, Load], None]:
    def part_dies(arena: Arena, _: Load) -> None:
        arena.parts.kill(name)
        arena.parts.start(name)

    return part_dies


def _database_is_away(seconds: float) -> Callable[[Arena, Load], None]:
    """Its sessions break off; what is submitted meanwhile is repeated until it is back."""

    def is_away(arena: Arena, load: Load) -> None:
        arena.parts.kill(postgres.NAME)
        load.succeeds(1)
        time.sleep(seconds)
        arena.parts.start(postgres.NAME)

    return is_away


def _product_dies(arena: Arena, _: Load) -> None:
    """The product of the lab keeps everything in memory: it comes back with nothing, and is told again."""
    arena.parts.kill("convex")
    arena.product_forgot = True
    arena.parts.start("convex")
    arena.parts.replay()


def _daemon_dies(arena: Arena, _: Load) -> None:
    arena.parts.kill_daemon()
    arena.parts.start_daemon()


def _broker_dies(arena: Arena, _: Load) -> None:
    """No worker outlives it: what it had under way RabbitMQ gives to others."""
    if rabbitmq.NAME not in process.recorded(arena.paths):
        pytest.skip("the broker is PostgreSQL")

    def workers() -> set[int]:
        return {each.pid for each in arena.parts.find(WORKER)}

    before = eventually(workers, "the workers", seconds=SOON_SECONDS)
    arena.parts.kill(rabbitmq.NAME)
    eventually(lambda: before.isdisjoint(workers()), "the workers to die")
    arena.parts.start(rabbitmq.NAME)


def _accounting_dies(arena: Arena, _: Load) -> None:
    if accounting.NAME not in process.recorded(arena.paths):
        pytest.skip("Slurm keeps no accounts")
    arena.parts.kill(accounting.NAME)
    arena.parts.start(accounting.NAME)


def _worker_stands_still(arena: Arena, _: Load) -> None:
    """For a minute; with `byoc.postgres` another one takes over what it had, and it finds itself fenced."""
    frozen = arena.parts.freeze_worker()
    assert frozen is not None
    until = time.monotonic() + FROZEN_SECONDS
    if arena.lab["node"]["broker"] == "byoc.postgres":
        with psycopg.connect(arena.lab["postgres"]["dsn"], autocommit=True) as connection:
            fenced = "SELECT FROM byoc.worker WHERE pid = %s AND fenced_at IS NOT NULL"
            eventually(
                lambda: connection.execute(fenced, (frozen.pid,)).fetchone() is not None,
                "the worker to be fenced",
                seconds=SOON_SECONDS,
            )
    time.sleep(max(0, until - time.monotonic()))
    arena.parts.thaw(frozen)


KILLS: dict[str, Callable[[Arena, Load], object]] = {
    "agent": lambda arena, _: arena.parts.kill("agent"),
    "launcher": lambda arena, _: arena.parts.kill_launcher(),
    "worker": lambda arena, _: arena.parts.kill_worker(),
    "daemon": _daemon_dies,
    "worker for 60 s": _worker_stands_still,
    "adapter": _dies("adapter"),
    "product": _product_dies,
    "database for 3 s": _database_is_away(3),
    "database for 60 s": _database_is_away(60),
    "broker": _broker_dies,
    "slurmd": _dies("slurmd-n1"),
    "accounting": _accounting_dies,
}


@pytest.mark.parametrize("victim", KILLS)
def test_a_part_that_dies_costs_nothing(arena: Arena, victim: str) -> None:
    """I2, I3, I8, I10, I17, I20: jobs that run, wait, begin and are cancelled meanwhile end as if nothing had been."""
    load = arena.load()
    load.succeeds(8)
    load.cancelled(after=6)
    eventually(lambda: _in_slurm(arena), "a job in Slurm", seconds=SOON_SECONDS)
    load.succeeds(1)

    KILLS[victim](arena, load)
    load.fails(1)
    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


@pytest.mark.parametrize("wire", ["adapter", "convex"])
def test_wires_that_fail_cost_nothing(arena: Arena, wire: str) -> None:
    """I2, I10, I11, I12, I15: lost before or after execution, late, twice, refused, never answered."""
    rules = [Rule(fault, chance=0.5, times=2) for fault in Fault if fault is not Fault.NONE]
    for rule in rules:
        arena.proxies[wire].add(rule)
    load = arena.load()
    for seconds in range(3):
        load.succeeds(seconds)
        load.fails(seconds)

    eventually(
        lambda: all(rule.applied == rule.times for rule in rules),
        "every fault to have happened",
        seconds=QUIET_SECONDS,
    )
    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


def test_an_adapter_that_dies_with_a_request_in_hand_costs_nothing(arena: Arena) -> None:
    """I2, I10, I12: it holds nothing, so it may die at every moment of every kind of request."""
    load = arena.load()
    for wire, fault, match, carrying in MOMENTS:
        rule = Rule(fault, match, carrying, times=1, action=lambda: arena.parts.kill("adapter"))
        with arena.proxies[wire].rule(rule):
            load.succeeds()
            eventually(
                lambda: not process.recorded(arena.paths)["adapter"].alive,
                f"the adapter to die: {wire}, {fault}, {match}",
                seconds=SOON_SECONDS,
            )
        arena.parts.start("adapter")

    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


@pytest.mark.parametrize("how", ["lose", "refuse", "kill"])
def test_an_sbatch_of_which_nobody_knows_what_it_did_is_not_repeated(
    arena: Arena, how: str
) -> None:
    """I17: it executes and reports a time-out, only reports it, or its caller dies before it answers."""
    arena.lie(how, 3)
    load = arena.load()

    for seconds in range(3):
        load.succeeds(seconds)
    told = arena.paths.directory("faults")
    eventually(lambda: not any(told.iterdir()), "sbatch to have lied", seconds=SOON_SECONDS)
    truths = arena.settle(load, QUIET_SECONDS)

    assert truths.holds, truths.table()


def test_a_controller_that_forgets_costs_no_double_and_no_harm_to_others(arena: Arena) -> None:
    """I17, I18, I19: jobs of others have our numbers and go on; ours end by their record or as lost, or wait."""
    state, saved = arena.paths.root / "slurm" / "state", arena.paths.root / "slurm" / "saved"
    load, arena.slurm_forgot = arena.load(), True
    shutil.copytree(state, saved)
    load.succeeds(30)
    load.succeeds(60)
    load.cancelled(after=20)
    ours = eventually(
        lambda: len(found := _in_slurm(arena)) == 3 and found, "three jobs in Slurm", seconds=90
    )

    arena.parts.kill("slurmctld")
    shutil.rmtree(state)
    saved.rename(state)
    arena.parts.start("slurmctld")
    others = eventually(lambda: _others(arena), "Slurm to take jobs again", seconds=60)
    _release_once_nodes_forgot(arena, others)
    truths = arena.settle(load, FORGOTTEN_SECONDS)
    ends = eventually(
        lambda: len(found := _ends_of_others(arena)) == len(others) and found,
        "the others to end",
        seconds=SOON_SECONDS,
    )

    assert set(ours) & set(others)
    assert truths.holds, truths.table()
    assert all("JobState=COMPLETED" in line for line in ends)


def _in_slurm(arena: Arena) -> list[str]:
    """The numbers of the jobs that the controller has, running or not."""
    return _slurm(arena, "squeue", "--noheader", "--format=%i").split()


def _others(arena: Arena) -> list[str]:
    """Three jobs of somebody else, held, by their numbers; none while the controller does not take any."""
    options = ["--parsable", "--job-name=other", "--mem=16", "--time=5", "--output=/dev/null"]
    command = ["sbatch", "--hold", *options, "--wrap=sleep 20"]
    given = [_slurm(arena, *command).strip() for _ in range(3)]
    return given if all(given) else []


def _release_once_nodes_forgot(arena: Arena, others: list[str]) -> None:
    """Let them start when Slurm has ended what its nodes had by their numbers.

    slurmd fails a job that starts in the second in which it ended another of that number ("Job credential revoked").
    """
    eventually(
        lambda: all(each.command != "slurmstepd" for each in belonging(arena.paths).values()),
        "the nodes to end what the controller does not know",
        seconds=SOON_SECONDS,
    )
    second = int(time.time())
    eventually(lambda: int(time.time()) > second, "the second to pass")
    _slurm(arena, "scontrol", "release", ",".join(others))


def _ends_of_others(arena: Arena) -> list[str]:
    log = (arena.paths.root / "slurm" / "jobcomp.log").read_text()
    return [line for line in log.splitlines() if "Name=other" in line]


def _slurm(arena: Arena, command: str, *arguments: str) -> str:
    return subprocess.run(
        [process.executable(command), *arguments],
        env=arena.lab["node"]["environment"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_a_node_that_slurm_drained_over_a_number_comes_back(arena: Arena) -> None:
    """As on a site with an administrator; what others drained stays drained."""
    environment = arena.lab["node"]["environment"]

    def slurm(*command: str) -> str:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    def state(node: str) -> str:
        return slurm("sinfo", "--noheader", f"--nodes={node}", "--partition=main", "--format=%t")

    try:
        for name, reason in (("n1", "Duplicate jobid"), ("n2", "a new fan")):
            slurm("scontrol", "update", f"NodeName={name}", "State=DRAIN", f"Reason={reason}")
        eventually(lambda: state("n1") == "idle", "the node to come back")
        assert state("n2") == "drain"
    finally:
        slurm("scontrol", "update", "NodeName=n2", "State=RESUME")
