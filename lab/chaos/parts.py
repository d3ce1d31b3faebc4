"""The processes of a lab: killed, frozen, and started again as their supervisor would."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import convex, postgres, process, rabbitmq
from lab.paths import LabPaths
from lab.proctable import Process, belonging

__all__ = ["LAUNCHER", "READER", "WORKER", "Parts"]

DAEMON_SECONDS = 300
COMMAND_SECONDS = 120.0
READY_SECONDS = 60.0
WORKER = ("daemon", "worker")
LAUNCHER = ("agent", "launch")
READER = ("agent", "read")
CIRCUS = ("daemon", "start-circus")
DUPLICATE = "Duplicate jobid"


class Parts:
    """Kill and restart what a lab consists of; launcher and workers come back by themselves, the agent by `keep`."""

    def __init__(self, paths: LabPaths, lab: Mapping[str, Any], chance: random.Random) -> None:
        """Remember how each daemon was started; all of them must run."""
        self._paths, self._lab, self._chance = paths, lab, chance
        self._commands = {
            name: _command_of(daemon.pid) for name, daemon in process.recorded(paths).items()
        }

    def kill(self, name: str) -> None:
        """SIGKILL a daemon of the lab; Postgres breaks off without a checkpoint."""
        daemon = process.recorded(self._paths)[name]
        number = signal.SIGQUIT if name == postgres.NAME else signal.SIGKILL
        _signal(daemon.pid, daemon.started, number)
        process.wait_until(lambda: not daemon.alive, READY_SECONDS, f"{name} to die")

    def start(self, name: str) -> None:
        """Start a daemon again, and wait where others would take its absence for an answer."""
        if name == postgres.NAME:
            postgres.start(self._paths)
        elif name == rabbitmq.NAME:
            rabbitmq.start(self._paths)
        else:
            argv, environment = self._commands[name]
            process.spawn(self._paths, name, argv, env=environment)
        if name == "convex":
            self._begin_anew()

    def keep(self) -> None:
        """Start what a supervisor of the machine would: the agent, if it died."""
        if not process.recorded(self._paths)["agent"].alive:
            self.start("agent")

    def resume_nodes(self) -> None:
        """Do what the site's administrator would: bring back the nodes that Slurm drained over a number given twice.

        A controller that was killed gives numbers anew: it does so where the first job of a number still runs.
        """
        told = self._slurm("sinfo", "--noheader", "--Node", "--states=drain", "--format=%N %E")
        for name, _, reason in (line.partition(" ") for line in set(told.splitlines())):
            if reason.strip() == DUPLICATE:
                self._slurm("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def kill_launcher(self) -> bool:
        """SIGKILL the agent's launcher; whether there was one."""
        return self._kill_one(LAUNCHER)

    def kill_worker(self) -> bool:
        """SIGKILL one of AiiDA's workers; whether there was one."""
        return self._kill_one(WORKER)

    def freeze_worker(self) -> Process | None:
        """SIGSTOP one of AiiDA's workers; `thaw` lets it go on."""
        found = self.find(WORKER)
        if not found:
            return None
        frozen = self._chance.choice(found)
        self.freeze(frozen)
        return frozen

    def freeze(self, one: Process) -> None:
        """SIGSTOP, if it still lives."""
        _signal(one.pid, one.started, signal.SIGSTOP)

    def thaw(self, frozen: Process) -> None:
        """SIGCONT, if it still lives."""
        _signal(frozen.pid, frozen.started, signal.SIGCONT)

    def kill_daemon(self) -> None:
        """SIGKILL AiiDA's daemon and its children at once, as the end of a service does."""
        circus = self.find(CIRCUS)
        of_circus = {each.pid for each in circus}
        children = [each for each in belonging(self._paths).values() if each.parent in of_circus]
        for each in (*circus, *children, *self.find(WORKER)):
            _signal(each.pid, each.started, signal.SIGKILL)

    def start_daemon(self) -> None:
        """Start AiiDA's daemon again, as a service's manager does: until it is there.

        `verdi` may give up waiting for it on a busy machine, and does at once while there is no database.

        Raises:
            LabError: it did not come for minutes.
        """

        def start() -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                workers = str(self._lab["node"]["workers"])
                self.verdi("daemon", "start", workers, check=False)
            return bool(self.find(CIRCUS))

        process.wait_until(start, DAEMON_SECONDS, "AiiDA's daemon")

    def verdi(self, *words: str, check: bool = True) -> str:
        """Run a `verdi` command on the node and return what it printed.

        Raises:
            LabError: it failed, unless `check` is false.
        """
        profile = self._lab["node"]["profile"]
        done = subprocess.run(
            ["verdi", "-p", profile, *words],
            env={**os.environ, **self._lab["node"]["environment"]},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise process.LabError(f"verdi {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _slurm(self, *command: str) -> str:
        """What one of Slurm's commands says; nothing without a controller."""
        environment = {**os.environ, **self._lab["node"]["environment"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def _begin_anew(self) -> None:
        """A product that lost everything learns its tenants again; `replay` gives it the rest."""
        where = self._lab["convex"]
        product = convex.Convex(
            url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"]
        )
        process.wait_until(lambda: convex.ready(product), READY_SECONDS, "Convex to answer")
        convex.call(product, "mutation", "tenancy:seed", where["declared"])

    def replay(self) -> None:
        """Send the product every event again; needs the database."""
        self.verdi("data", "byoc", "events", "replay", "--all")

    def _kill_one(self, words: Sequence[str]) -> bool:
        found = self.find(words)
        if found:
            one = self._chance.choice(found)
            _signal(one.pid, one.started, signal.SIGKILL)
        return bool(found)

    def find(self, words: Sequence[str]) -> list[Process]:
        """The lab's processes whose command line ends with these words, or has only numbers after them."""
        living = belonging(self._paths).values()
        return sorted(
            (each for each in living if _ends_with(each.pid, words)), key=lambda each: each.pid
        )


def _ends_with(pid: int, words: Sequence[str]) -> bool:
    arguments = _arguments(pid)
    while arguments and arguments[-1].isdigit():
        arguments.pop()
    return arguments[-len(words) :] == list(words)


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _command_of(pid: int) -> tuple[list[str], dict[str, str]]:
    entries = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return _arguments(pid), dict(entry.partition("=")[::2] for entry in entries)


def _signal(pid: int, started: int, number: signal.Signals) -> None:
    there = Process.read(pid)
    if there is not None and there.started == started:
        os.kill(pid, number)
