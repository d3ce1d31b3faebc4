"""What the cluster has, how much of it is free, and the largest array it takes: by `sinfo` and `scontrol`, asked aside.

Whoever wants to know never waits.
"""

from __future__ import annotations

import logging
import re
import subprocess
import threading
import time
from collections.abc import Collection, Iterable

from aiida_byoc.asking import largest_array, said
from aiida_byoc.contracts.delivery import Partition

__all__ = ["FORMAT", "MOST_PARTITIONS", "Inventory", "partitions_of"]

_LOGGER = logging.getLogger(__name__)

FORMAT = "%R|%a|%T|%D|%C|%G"
"""sinfo(1): partition, availability, state, nodes, processors (allocated/idle/other/total), GRES of each node."""

MOST_PARTITIONS = 64
_ASK_SECONDS = 10.0
_FRESH_SECONDS = 60.0
_STALE_SECONDS = 600.0
_LINE = re.compile(r"([^|]+)\|([a-z]+)\|([a-z_]+)([^a-z_|]*)\|(\d+)\|\d+/(\d+)/\d+/(\d+)\|(.*)")
_GPU = re.compile(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)")
_NOT_THERE = frozenset("*$!%@^")
"""Marks behind a state of nodes that do not answer, are in maintenance, go down or start anew; `~`, a node that is
powered off until it is needed, is none."""


def partitions_of(lines: Iterable[str]) -> list[Partition]:
    """What `sinfo --noheader --format=FORMAT` printed: one line for each partition, state and kind of node.

    What it does not understand it leaves out: a scheduler's output is no message of ours.
    """
    found: dict[str, Partition] = {}
    for line in lines:
        read = _LINE.fullmatch(line.strip())
        if read is None:
            continue
        name, available, state, marks, nodes, idle, cpus, gres = read.groups()
        count = int(nodes)
        free = state == "idle" and not _NOT_THERE & set(marks)
        known = found.get(name) or Partition(
            name=name[:64], up=available == "up", nodes=0, nodes_free=0, cpus=0, cpus_free=0
        )
        found[name] = known.model_copy(
            update={
                "nodes": known.nodes + count,
                "nodes_free": known.nodes_free + (count if free else 0),
                "cpus": known.cpus + int(cpus),
                "cpus_free": known.cpus_free + int(idle),
                "gpus": known.gpus + count * sum(map(int, _GPU.findall(gres))),
            }
        )
    return [found[name] for name in sorted(found)]


class Inventory:
    """The newest answer of the cluster, asked anew once it is a minute old."""

    def __init__(self, *, fresh_seconds: float = _FRESH_SECONDS) -> None:
        self._fresh_seconds = fresh_seconds
        self._guard = threading.Lock()
        self._asks = False
        self._asked_at, self._answered_at = float("-inf"), float("-inf")
        self._names: frozenset[str] = frozenset()
        self._partitions: list[Partition] | None = None
        self._largest_array: int | None = None
        self._failed = False

    @property
    def largest_array(self) -> int | None:
        """How many elements Slurm takes in one array, as it said last; `None` as long as it has not said."""
        return self._largest_array

    @property
    def fails(self) -> bool:
        """Whether the last question was not answered."""
        return self._failed

    def partitions(self, names: Collection[str]) -> list[Partition] | None:
        """Those partitions as they were a minute ago at most; `None` as long as nothing is known of them.

        Returns at once; what it finds too old is asked for meanwhile.
        """
        wanted = frozenset(sorted(names)[:MOST_PARTITIONS])
        with self._guard:
            now = time.monotonic()
            is_due = now - self._asked_at >= self._fresh_seconds or wanted != self._names
            if wanted and is_due and not self._asks:
                self._asks, self._asked_at = True, now
                threading.Thread(
                    target=self._ask, args=(wanted,), name="sinfo", daemon=True
                ).start()
            known = now - self._answered_at < _STALE_SECONDS and wanted == self._names
            return self._partitions if known else None

    def _ask(self, names: frozenset[str]) -> None:
        partitions: list[Partition] | None = None
        try:
            answer = said(
                *("sinfo", "--noheader", "--noconvert"),
                *(f"--partition={','.join(names)}", f"--format={FORMAT}"),
                seconds=_ASK_SECONDS,
            )
            partitions = partitions_of(answer.splitlines())
            most = largest_array(seconds=_ASK_SECONDS)
            self._largest_array = self._largest_array if most is None else most
        except (OSError, subprocess.SubprocessError) as error:
            _LOGGER.warning(
                "Slurm does not tell what it has event=inventory_failed: %s", type(error).__name__
            )
        finally:
            with self._guard:
                self._asks, self._failed = False, partitions is None
                if partitions is not None:
                    self._partitions, self._names = partitions, names
                    self._answered_at = time.monotonic()
