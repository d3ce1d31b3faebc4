"""The worker that `slurm_latency` measures, in a process of its own with the lab's environment.

`work MODE` is one of AiiDA's workers; `watch MODE SECONDS AGE` is what the watches of one do, over all jobs in the
queue and without their processes: it prints the CPU seconds that they took.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import aiida
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.engine.transports import TransportQueue
from aiida.orm import User, load_computer

from aiida_byoc.calculations import listening, lookout, waiting
from aiida_byoc.schedulers.slurm import identity
from benchmarks.slurm_latency import STOCK
from lab.node import COMPUTER, PROFILE


def main(part: str, mode: str, *rest: str) -> None:
    """Do one part on one schedule."""
    if mode == STOCK:
        _ask_at_intervals()
    if part == "work":
        _say_what_is_known()
        sys.argv = ["verdi", "-p", PROFILE, "daemon", "worker"]
        verdi()
    else:
        seconds, age = map(float, rest)
        print(asyncio.run(_watch(seconds, age)))


def _ask_at_intervals() -> None:
    """Look as AiiDA's `JobsList` does: about whoever waits, when the interval has passed, and at nothing else."""

    class Deaf(listening.Listener):
        async def listen(self, posts: Any) -> bool:
            return False

    vars(lookout)["Listener"] = Deaf
    vars(lookout)["_SHORTEST_SECONDS"] = float("inf")


def _say_what_is_known() -> None:
    """Print `known NAME TIME` when the end of a job in Slurm is known: AiiDA fetches and parses before it is told."""
    until_known = waiting._Watch._watch

    async def timed(watch: Any, cluster: Any, post: Any, cancellable: Any) -> None:
        await until_known(watch, cluster, post, cancellable)
        print(f"known {post.name} {time.time()}", flush=True)

    vars(waiting)["_Watch"]._watch = timed


async def _watch(seconds: float, age: float) -> float:
    aiida.load_profile(PROFILE)
    computer = load_computer(COMPUTER)
    queue = TransportQueue(asyncio.get_running_loop())
    shared = lookout.Lookout(queue, computer.get_authinfo(User.collection.get_default()))
    shown = subprocess.run(
        ["squeue", "--noheader", "--me", "--format=%i %j"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    async def one(job: str, name: str) -> None:
        with shared.post(name, f"{computer.get_workdir()}/00/00/0") as post:
            post.changed -= age
            while True:
                await shared.sight(post, identity(job, name))
                if age:
                    post.changed = time.monotonic() - age  # also when first seen

    began = time.process_time()
    watches = [asyncio.create_task(one(*line.split())) for line in shown.splitlines()]
    failed, _ = await asyncio.wait(watches, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for each in failed:
        each.result()
    return time.process_time() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
