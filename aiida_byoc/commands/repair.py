"""Playing on what AiiDA paused: after five failures of the transport or of `sbatch` it leaves a process for a person.

Nobody may be there. So the launcher's process plays such a process again once the cluster answers, ever more seldom,
until it gets on or the policy's bound is met. What an operator paused is never touched: AiiDA's own words tell the two
apart. How often each was played is in the database.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiida.manage import get_manager
from aiida.orm import AuthInfo, CalcJobNode, load_node
from plumpy.futures import unwrap_kiwi_future
from psycopg.rows import class_row

from aiida_byoc import crashpoints
from aiida_byoc.commands.housekeeping import Repair
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox
from aiida_byoc.events.hooks import transaction
from aiida_byoc.events.outbox import Report

__all__ = ["Repairer", "answers"]

_LOGGER = logging.getLogger(__name__)
_PLAY_SECONDS = 5.0
_PROBES = {"byoc.slurm": "timeout 20 scontrol ping", "core.slurm": "timeout 20 scontrol ping"}
"""Scheduler → what a cluster that works answers with status 0 and UP."""
_ANY_PROBE = "echo UP"

_PAUSED = """
INSERT INTO byoc.play AS known (process_pk, stage, submission_id, next_at)
SELECT child.id, coalesce(child.attributes ->> 'state', ''), job.submission_id,
       now() + random() * %(first_seconds)s * interval '1 second'
FROM byoc.job
CROSS JOIN LATERAL byoc.descendants(job.process_pk) AS below
JOIN db_dbnode AS child ON child.id = below.process_pk
WHERE job.state = 'held' AND job.cancel_requested_at IS NULL AND child.attributes ->> 'paused' = 'true'
  AND child.attributes ->> 'process_status' LIKE 'Pausing after failed transport task:%%'
  AND child.attributes ->> 'process_state' NOT IN ('finished', 'excepted', 'killed')
ON CONFLICT (process_pk, stage) DO UPDATE SET next_at = coalesce(known.next_at,
    now() + random() * least(%(most_seconds)s, %(first_seconds)s * 2 ^ least(known.plays, 30)) * interval '1 second')
RETURNING process_pk, stage, submission_id::text, plays, given_up, next_at <= now() AS is_due
"""

_PLAYED = (
    "UPDATE byoc.play SET plays = plays + %s, next_at = NULL WHERE process_pk = %s AND stage = %s"
)
_GIVEN_UP = "UPDATE byoc.play SET given_up = true WHERE process_pk = %s AND stage = %s"
_ENDED = """
DELETE FROM byoc.play USING byoc.job
WHERE job.submission_id = play.submission_id AND job.state IN ('succeeded', 'failed', 'cancelled')
"""


@dataclass(frozen=True)
class _Paused:
    """A paused process, and what became of it so far."""

    process_pk: int
    stage: str
    submission_id: str
    plays: int
    given_up: bool
    is_due: bool


@dataclass(frozen=True)
class _Probe:
    """Whether a cluster answered, and until when that need not be asked again (monotonic, seconds)."""

    works: bool
    until: float
    pause: float


def _play(pk: int) -> None:
    """Ask the worker that has the process; raise unless it did as it was asked."""
    asked = get_manager().get_process_controller().play_process(pk)
    if unwrap_kiwi_future(asked).result(_PLAY_SECONDS) is not True:
        raise RuntimeError(f"process {pk} was not played")


class Repairer:
    """Plays paused processes on.

    Args:
        storage: AiiDA's.
        play: makes the process of that pk go on; raises if it cannot.

    Attributes:
        rules: the policy's; whoever reads it sets them anew.
    """

    def __init__(self, storage: Any, play: Callable[[int], object] = _play) -> None:
        self._storage = storage
        self._play = play
        self._probes: dict[int, _Probe] = {}
        self.rules = Repair()

    def step(self) -> int:
        """Play what is due; return how many processes go on."""
        with transaction(self._storage) as connection:
            connection.execute(_ENDED)
            cursor = connection.cursor(row_factory=class_row(_Paused))
            paused = cursor.execute(_PAUSED, self.rules.model_dump()).fetchall()
        played = 0
        for each in paused:
            if each.plays >= self.rules.max_plays:
                if each.plays and not each.given_up:
                    self._give_up(each)
            elif each.is_due and self._answers(load_node(each.process_pk)):
                if not self._play_on(each):
                    break  # nor would the next one find its worker
                played += 1
        return played

    def _play_on(self, paused: _Paused) -> bool:
        try:
            self._play(paused.process_pk)
        except (
            Exception
        ) as error:  # no worker has it, or the broker is away: that counts for nothing
            _LOGGER.warning(
                "Process not played event=play_failed pk=%s: %s",
                paused.process_pk,
                error or type(error).__name__,
            )
            is_played = False
        else:
            crashpoints.reached("repair.played")
            is_played = True
            _LOGGER.info(
                "Process played event=process_played pk=%s plays=%s",
                paused.process_pk,
                paused.plays + 1,
            )
        with transaction(self._storage) as connection:
            connection.execute(_PLAYED, (int(is_played), paused.process_pk, paused.stage))
        return is_played

    def _give_up(self, paused: _Paused) -> None:
        """Tell the product that the job waits for a person."""
        now = datetime.now(UTC)
        reason = (
            f"the cluster failed process {paused.process_pk} again and again; it was played {paused.plays} times"
            " and now waits for an operator"
        )
        with transaction(self._storage) as connection:
            outbox.resume(connection, paused.submission_id, now)
            held = Report(state=ExecutionState.HELD, occurred_at=now, reason=reason)
            outbox.append(connection, paused.submission_id, held)
            connection.execute(_GIVEN_UP, (paused.process_pk, paused.stage))
        _LOGGER.error("Job given up event=play_given_up pk=%s: %s", paused.process_pk, reason)

    def _answers(self, attempt: CalcJobNode) -> bool:
        """Whether the attempt's cluster works as far as a cheap question tells; asked seldom."""
        authinfo = attempt.get_authinfo()
        probe = self._probes.get(authinfo.pk)
        if probe is None or probe.until <= time.monotonic():
            works = answers(authinfo)
            longer = self.rules.first_seconds if probe is None else 2 * probe.pause
            pause = self.rules.first_seconds if works else min(longer, self.rules.most_seconds)
            probe = _Probe(works, time.monotonic() + pause, pause)
            self._probes[authinfo.pk] = probe
        return probe.works


def answers(authinfo: AuthInfo) -> bool:
    """Whether the cluster can be reached by AiiDA's transport and its Slurm answers."""
    try:
        with authinfo.get_transport() as transport:
            probe = _PROBES.get(authinfo.computer.scheduler_type, _ANY_PROBE)
            status, output, _ = transport.exec_command_wait(probe)
    except Exception as error:  # whatever the transport raises
        _LOGGER.info("Cluster unreachable event=probe_failed: %s", error or type(error).__name__)
        return False
    return status == 0 and "UP" in output
