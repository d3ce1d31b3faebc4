"""The channel's loop: each round gives the verdicts of the round before, and decides what came meanwhile.

While one round is decided the next one's commands gather at the adapter, so the more is asked, the more is decided at
a time, by one poll and one transaction; what comes alone waits for nobody.
"""

from __future__ import annotations

import psycopg

from aiida_byoc import crashpoints
from aiida_byoc.agent.channel import decide_all
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.inventory import Inventory
from aiida_byoc.agent.logs import LogDesk
from aiida_byoc.contracts.delivery import Command, Verdict
from aiida_byoc.node import NodeSettings

__all__ = ["Answering"]

_COMMANDS_PER_POLL = 100
_ROUNDS = 100
"""At most, before the loop is asked whether it still should."""


class Answering:
    """Decides commands.

    Args:
        settings: the node's.
        desk: takes the requests for logs, which no other command may wait for.
        inventory: knows the largest array that Slurm takes.
    """

    def __init__(
        self, settings: NodeSettings, desk: LogDesk, inventory: Inventory | None = None
    ) -> None:
        self._settings, self._desk = settings, desk
        self._inventory = inventory or Inventory()
        self._verdicts: list[tuple[str, Verdict]] = []

    def step(self, connection: psycopg.Connection, client: AdapterClient) -> float:
        """Rounds, as long as each decides something; how long to wait before the next, in seconds.

        Between two of them nobody asks whether the connection, and with it the loop's lock, is there: it just answered.
        """
        for _ in range(_ROUNDS):
            asked_database = False
            commands = self._without_logs(self._heard(client))
            most = self._inventory.largest_array
            for command, verdict in decide_all(connection, self._settings, commands, most):
                self._verdicts.append((command.command_id, verdict))
                asked_database |= verdict.outcome != "rejected"
            if not asked_database:
                break
        return 0

    def _heard(self, client: AdapterClient) -> list[Command]:
        """Give the verdicts; the commands that came."""
        given, self._verdicts = self._verdicts, []
        try:
            commands = client.poll(
                wait_seconds=self._settings.poll_seconds,
                max_commands=_COMMANDS_PER_POLL,
                verdicts=given,
            )
        except AdapterUnavailable as error:
            if error.status is None:  # nobody refused them
                self._verdicts = given
            raise
        if given:
            crashpoints.reached("verdict.sent")
        return commands

    def _without_logs(self, commands: list[Command]) -> list[Command]:
        """The commands that are decided here; requests for logs are taken, or refused when there is no room."""
        others = []
        for command in commands:
            if command.operation != "logs":
                others.append(command)
            elif (refusal := self._desk.take(command)) is not None:
                self._verdicts.append((command.command_id, refusal))
        return others
