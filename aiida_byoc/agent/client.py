"""The node's side of the adapter's HTTP: what the loops of the agent ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import httpx

from aiida_byoc.agent.credential import Credential, credential
from aiida_byoc.agent.link import AdapterUnavailable, ask, link, read, timeout
from aiida_byoc.contracts.delivery import (
    Acknowledgement,
    Command,
    CommandBatch,
    CommandVerdict,
    Heartbeat,
    PollRequest,
    Verdict,
)
from aiida_byoc.events.relay import BatchRefused
from aiida_byoc.node import NodeSettings

__all__ = ["AdapterClient", "AdapterUnavailable"]

_OPERATIONS = ["logs", "receipt", "signatures"]
"""What this node knows beside what every node knows."""
_MOST_ALONG_BYTES = 512 * 1024
"""Half of what the adapter takes of a poll."""
_POISON = {400, 413, 422}
_LATER_FIELDS = {
    "partitions",
    "jobs_waiting",
    "jobs_running",
    "slots_free",
    "clock_skew_seconds",
    "trouble",
}
"""Of a heartbeat, what adapters of version 0.1 do not know."""
_OLD_ADAPTER_SECONDS = 3600.0


class AdapterClient:
    """Calls of one node. Each thread needs its own; they may share the credential."""

    def __init__(self, settings: NodeSettings, shared: Credential | None = None) -> None:
        self._node = settings.node_id
        self._credential = shared or credential(settings)
        self._http = link(settings)
        self._adapter_is_old_until = 0.0
        self._takes_verdicts = False

    def poll(
        self,
        *,
        wait_seconds: int,
        max_commands: int,
        verdicts: Sequence[tuple[str, Verdict]] = (),
    ) -> list[Command]:
        """Wait for commands; an empty list when none came.

        Args:
            verdicts: by `command_id`, on commands of earlier polls. They go along, which costs no request of their own;
                to an adapter of the version before, and where there is no room for them, each goes by itself, before.
        """
        along = self._room_for(verdicts) if self._takes_verdicts else 0
        for command_id, verdict in verdicts[along:]:
            self.verdict(command_id, verdict)
        wish = PollRequest(
            wait_seconds=wait_seconds,
            max_commands=max_commands,
            operations=_OPERATIONS,
            verdicts=[
                CommandVerdict(command_id=command_id, verdict=verdict)
                for command_id, verdict in verdicts[:along]
            ],
        )
        try:
            response = self._post(
                "/commands/poll",
                content=wish.wire(),
                headers={"Content-Type": "application/json"},
                timeout=timeout(wait_seconds),
            )
        except AdapterUnavailable as error:
            if not along or error.status not in _POISON:
                raise
            self._takes_verdicts = False  # it was replaced by one that does not, perhaps
            return self.poll(
                wait_seconds=wait_seconds, max_commands=max_commands, verdicts=verdicts[:along]
            )
        batch = read(CommandBatch, response)
        self._takes_verdicts = bool(batch.takes_verdicts)
        return batch.commands

    def verdict(self, command_id: str, verdict: Verdict) -> None:
        """Answer a command. One that the adapter no longer waits for (404) is answered all the same."""
        try:
            self._post(f"/commands/{command_id}/verdict", json=verdict.wire())
        except AdapterUnavailable as error:
            if error.status != 404:
                raise

    @staticmethod
    def _room_for(verdicts: Sequence[tuple[str, Verdict]]) -> int:
        """How many of the verdicts, from the first, one poll may bring."""
        sizes = accumulate(len(verdict.model_dump_json()) for _, verdict in verdicts)
        return sum(size <= _MOST_ALONG_BYTES for size in sizes)

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Deliver a CloudEvents batch; the answer says what the product has.

        Raises:
            BatchRefused: the answer was about what is in the batch.
        """
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        try:
            response = self._post("/events", json=batch, headers=headers)
        except AdapterUnavailable as error:
            if error.status in _POISON:
                raise BatchRefused(str(error), error.problem) from error
            raise
        return read(Acknowledgement, response)

    def heartbeat(self, heartbeat: Heartbeat) -> float | None:
        """Tell that we live, to an adapter of the version before in its words.

        Returns:
            How far this machine's clock is ahead of the adapter's, in seconds, as far as the answer tells.
        """
        told = heartbeat.model_dump(mode="json", exclude_none=True)
        if time.monotonic() < self._adapter_is_old_until:
            return self._told(_older(told))
        try:
            return self._told(told)
        except AdapterUnavailable as error:
            unknown = {field.partition(".")[0] for field in error.fields} & _LATER_FIELDS
            if error.status != 422 or not unknown:
                raise
        skew = self._told(_older(told))
        self._adapter_is_old_until = time.monotonic() + _OLD_ADAPTER_SECONDS
        return skew

    def _told(self, heartbeat: dict[str, Any]) -> float | None:
        self._credential.bearer(self._http)  # fetched before the time is taken
        before = datetime.now(UTC)
        response = self._post("/heartbeat", json=heartbeat)
        half = (datetime.now(UTC) - before) / 2
        try:
            answered = datetime.fromisoformat(response.json()["received_at"])
            return (before + half - answered).total_seconds()
        except (ValueError, KeyError, TypeError):
            return None

    def _post(self, path: str, **request: Any) -> httpx.Response:
        """POST with a bearer, and once more with another if that one is not taken any longer."""
        bearer = self._credential.bearer(self._http)
        try:
            return self._sent(path, bearer, **request)
        except AdapterUnavailable as error:
            if error.status != 401 or not self._credential.refused(bearer):
                raise
        return self._sent(path, self._credential.bearer(self._http), **request)

    def _sent(self, path: str, bearer: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {bearer}", **request.pop("headers", {})}
        return ask(self._http, f"/nodes/{self._node}{path}", headers=headers, **request)


def _older(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _LATER_FIELDS}
