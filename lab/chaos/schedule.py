"""A stream of jobs, and faults at random beside it, until time is up; then quiet, and the comparison."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from aiida_byoc.crashpoints import POINTS
from lab import accounting, postgres, process, rabbitmq
from lab.chaos.arena import Arena
from lab.chaos.proxy import Fault, Rule
from lab.chaos.truths import Truths

__all__ = ["Chaos"]

_LOGGER = logging.getLogger(__name__)
TICK_SECONDS = 0.1
TELL_SECONDS = 15.0
AT_ONCE = 16
KILLED_PARTS = ("adapter", "convex", "slurmctld", "slurmd-n1", postgres.NAME)
KILLED_IF_THERE = (rabbitmq.NAME, accounting.NAME)
WIRE = [fault for fault in Fault if fault is not Fault.NONE]
FOREIGN = "foreign"
LIES = ("lose", "refuse", "kill")


@dataclass
class Chaos:
    """One run.

    Args:
        rate: jobs per second.
        every: mean seconds from one fault to the next.
        settle: seconds without an event or a delivery, after the last fault, that tell what is stuck.
    """

    arena: Arena
    chance: random.Random
    rate: float
    every: float
    settle: float
    faults: Counter[str] = field(default_factory=Counter)
    _due: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _down: set[str] = field(default_factory=set)
    _aside: list[Future[object]] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))

    def run(self, seconds: float) -> Truths:
        """Submit and disturb for so long, then mend everything, wait and compare."""
        load = self.arena.load()
        began = time.monotonic()
        next_job = next_fault = next_word = began
        while (now := time.monotonic()) < began + seconds:
            while now >= next_job:  # also those that came due while a part was started
                load.any(self.chance)
                next_job += self.chance.expovariate(self.rate)
            if now >= next_fault:
                self._disturb()
                next_fault = now + self.chance.expovariate(1 / self.every)
            if now >= next_word:
                next_word = now + TELL_SECONDS
                self._tell(f"{now - began:5.0f} s  {len(load.jobs)} jobs, {self.kills} kills")
            self._do(until=now)
            time.sleep(TICK_SECONDS)
        self._tell("no more faults; waiting for quiet")
        while self._due or self._aside:
            self._do(until=float("inf"))
            time.sleep(TICK_SECONDS)
        self.arena.calm()
        return self.arena.settle(load, self.settle)

    @property
    def kills(self) -> int:
        """How many processes were killed, stopped for a while not counted."""
        return sum(count for name, count in self.faults.items() if name.startswith("kill"))

    def foreign_cancelled(self) -> int:
        """How many jobs of others, which took over our jobs' numbers, were cancelled by us: must be none."""
        log = self.arena.paths.root / "slurm" / "jobcomp.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return sum(f"Name={FOREIGN}" in line and "JobState=CANCELLED" in line for line in lines)

    def _disturb(self) -> None:
        kinds: dict[Callable[[], None], int] = {
            self._kill_agent: 2,
            self._kill_launcher: 3,
            self._kill_worker: 5,
            self._kill_daemon: 1,
            self._kill_part: 5,
            self._kill_on_the_wire: 3,
            self._arm: 5,
            self._freeze: 1,
            self._wire: 3,
            self._lie: 2,
        }
        fault = self.chance.choices(list(kinds), weights=list(kinds.values()))[0]
        fault()

    def _kill_agent(self) -> None:
        self._count("kill agent")
        self.arena.parts.kill("agent")

    def _kill_launcher(self) -> None:
        if self.arena.parts.kill_launcher():
            self._count("kill launcher")

    def _kill_worker(self) -> None:
        if self.arena.parts.kill_worker():
            self._count("kill worker")

    def _kill_daemon(self) -> None:
        if self._take_down("daemon"):
            self._count("kill daemon and workers")
            self.arena.parts.kill_daemon()
            self._later(self._pause(), self._start_daemon)

    def _start_daemon(self) -> None:
        self.arena.parts.start_daemon()
        self._down.discard("daemon")

    def _kill_part(self) -> None:
        parts = process.recorded(self.arena.paths)
        name = self.chance.choice(
            [*KILLED_PARTS, *(part for part in KILLED_IF_THERE if part in parts)]
        )
        if not self._take_down(name):
            return
        self._count(f"kill {name}")
        self.arena.parts.kill(name)
        self.arena.slurm_forgot |= name == "slurmctld"
        self.arena.product_forgot |= name == "convex"
        long = name == postgres.NAME and self.chance.random() < 0.1
        self._later(60 if long else self._pause(), lambda: self._start(name))

    def _start(self, name: str) -> None:
        unready = Rule(Fault.UNAVAILABLE)
        # As when a product is restored: nobody may ask it before it knows its tenants.
        if name == "convex":
            self.arena.proxies[name].add(unready, first=True)
        self.arena.parts.start(name)
        self._down.discard(name)
        if name == "slurmctld":
            self._take_over_numbers()
        if name == "convex":
            self.arena.proxies[name].remove(unready)
            self._later(0, self._replay_all)

    def _replay_all(self) -> None:
        """Tell a product that lost everything all of it again; not while the node has no database."""
        try:
            self.arena.parts.replay()
        except process.LabError as error:
            _LOGGER.info("replay later: %s", error)
            self._later(5, self._replay_all)

    def _take_over_numbers(self) -> None:
        """Jobs of others get the numbers that a killed controller forgot to have given to ours."""
        command = ["sbatch", f"--job-name={FOREIGN}", "--mem=16", "--time=5", "--output=/dev/null"]
        for _ in range(3):
            subprocess.run(
                [process.executable("sbatch"), *command[1:], "--wrap=sleep 8"],
                env=self.arena.lab["node"]["environment"],
                capture_output=True,
                check=False,
            )

    def _kill_on_the_wire(self) -> None:
        """The adapter dies with a request in hand, before or after whom it asked has carried it out."""
        if not self._take_down("adapter"):
            return

        def die() -> None:
            self._count(f"kill adapter, {rule.fault} at {name}")
            self.arena.parts.kill("adapter")

        def recover() -> None:
            self.arena.proxies[name].remove(rule)
            if not process.recorded(self.arena.paths)["adapter"].alive:
                self.arena.parts.start("adapter")
            self._down.discard("adapter")

        name = self.chance.choice(list(self.arena.proxies))
        fault = self.chance.choice([Fault.DROP, Fault.LOSE_ANSWER])
        rule = Rule(fault, match="jobs|poll|events|mutation", times=1, action=die)
        self.arena.proxies[name].add(rule)
        self._later(self._pause(), recover)

    def _arm(self) -> None:
        """Arm a crash point for a while; most are passed within seconds."""
        point = self.chance.choice(list(POINTS))
        self.arena.arm(point)

        def look() -> None:
            if self.arena.hit(point):
                self._count(f"kill at {point}")

        self._later(3 * self.every, look)

    def _freeze(self) -> None:
        """A worker stands still, sometimes for longer than its lease, and then goes on."""
        seconds = self.chance.choice([5, 20, 60])
        frozen = self.arena.parts.freeze_worker()
        if frozen is not None:
            self._count(f"freeze worker for {seconds} s")
            self._later(seconds, lambda: self.arena.parts.thaw(frozen))

    def _wire(self) -> None:
        name, proxy = self.chance.choice(list(self.arena.proxies.items()))
        rule = Rule(self.chance.choice(WIRE), chance=0.5)
        self._count(f"{rule.fault} at {name}")
        proxy.add(rule)
        self._later(self._pause(), lambda: proxy.remove(rule))

    def _lie(self) -> None:
        how = self.chance.choice(LIES)
        times = self.chance.randint(1, 3)
        self._count(f"sbatch: {how}", times)
        self.arena.lie(how, times)

    def _pause(self) -> float:
        return self.chance.uniform(0.5, 6)

    def _take_down(self, name: str) -> bool:
        if name in self._down:
            return False
        self._down.add(name)
        return True

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), what))

    def _do(self, until: float) -> None:
        """Begin what is due, aside: a part that takes its time to start keeps no job and no other fault waiting."""
        while self._due and self._due[0][0] <= until:
            self._aside.append(self._pool.submit(heapq.heappop(self._due)[2]))
        ended = [each for each in self._aside if each.done()]
        self._aside = [each for each in self._aside if each not in ended]
        for each in ended:
            each.result()

    def _count(self, what: str, times: int = 1) -> None:
        _LOGGER.info("%s", what)
        self.faults[what] += times

    @staticmethod
    def _tell(word: str) -> None:
        sys.stderr.write(f"chaos: {word}\n")
