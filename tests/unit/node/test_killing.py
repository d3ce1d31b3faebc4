"""Kills are asked for now and then, and a broker that is away is not asked for every process."""

from __future__ import annotations

import kiwipy
import pytest

from aiida_byoc.commands import killing
from aiida_byoc.commands.killing import Killer


class Workers:
    """Whoever is asked, and what comes of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.error: Exception | None = None

    def ask(self, pk: int) -> None:
        """Note it, or fail."""
        self.asked.append(pk)
        if self.error is not None:
            raise self.error


def test_a_worker_that_was_asked_is_left_to_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be frozen, or at `scancel` for minutes."""
    workers = Workers()
    killer = Killer(workers.ask)
    for _ in range(3):
        killer.kill(1)
        killer.kill(2)
    assert workers.asked == [1, 2]

    monkeypatch.setattr(killing, "_AGAIN_SECONDS", 0.0)
    killer.kill(1)

    assert workers.asked == [1, 2, 1]


def test_a_process_that_nobody_runs_is_asked_for_again() -> None:
    """A worker may have it the next moment."""
    workers = Workers()
    killer = Killer(workers.ask)
    workers.error = kiwipy.UnroutableError("nobody runs process 1 now")

    killer.kill(1)
    killer.kill(1)

    assert workers.asked == [1, 1]


def test_a_broker_that_is_away_costs_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take its time-out, and jobs wait to be stopped in Slurm meanwhile."""
    workers = Workers()
    killer = Killer(workers.ask)
    workers.error = TimeoutError()
    killer.kill(1)
    killer.kill(2)
    assert workers.asked == [1]

    workers.error = None
    monkeypatch.setattr(killer, "_broker_from", 0.0)
    killer.kill(2)

    assert workers.asked == [1, 2]
