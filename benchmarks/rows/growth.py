"""Growth: the same questions to a node whose ledger and outbox hold ever more, against themselves at nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events.relay import deliver
from aiida_byoc.node import NodeSettings
from benchmarks import bulk, clients
from benchmarks.figures import Measure, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.rows.acceptance import claims, submissions, wait_until_told

__all__ = ["Taker", "measure"]

SIZES = (0, 10_000, 1_000_000)
QUICK_SIZES = (0, 10_000, 100_000)
NODES = 10_000
JOBS_PER_ROUND = 20
THROUGH_SECONDS = 3
"""How long one client submits, and one asks, through the adapter."""

Times = dict[str, list[float]]
"""Seconds of each repetition, by what was done."""


class Taker:
    """A product that takes everything."""

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Acknowledge all."""
        reached: dict[str, int] = {}
        for event in batch:
            reached[event["data"]["submission_id"]] = event["data"]["seq"] + 1
        return Acknowledgement(next_seq=reached)


def measure(bench: Bench) -> list[Measure]:
    """Acceptance, relay, heartbeat and status at each size; the last also with AiiDA's nodes."""
    lab = bench.lab.without_work()
    sizes = QUICK_SIZES if bench.quick else SIZES
    found: dict[str, Times] = {}
    with bench.lab.database() as connection:
        bulk.empty(connection)
        model = bulk.tell_one(connection, bench.lab.paths, lab)
        held = 0
        for size in sizes:
            bulk.copy(connection, model, f"to-{size}-", size - held, told=True)
            held = max(held, size)
            if size == sizes[-1]:
                bulk.nodes(connection, NODES)
            with bench.lab.superuser() as superuser:
                superuser.execute("CHECKPOINT")
            found[f"{size:,}"] = _times(bench, lab, connection, model)
    bench.keep.raw("growth", "seconds", found)
    return _measures(found)


def _times(
    bench: Bench, lab: Mapping[str, Any], connection: psycopg.Connection, model: str
) -> Times:
    repeated = bench.scale(300, 100)
    tenant = lab["tenants"][0]["tenant_id"]
    url = lab["adapter"]["url"]
    settings = NodeSettings.load(
        NodeSettings.path(Path(lab["node"]["aiida_path"]) / ".aiida", lab["node"]["profile"])
    )
    pulse = Pulse(settings)
    asking = clients.request(
        "GET",
        f"{url}/v1/nodes/{lab['node']['node_id']}/jobs/model",
        lab["tenants"][0]["token"],
    )
    claims(bench, lab, 20)  # plans are made, pages are read
    return {
        "the ledger's claim": claims(bench, lab, repeated),
        "acceptance through the adapter": clients.run(
            url, submissions(lab, url), clients=1, seconds=THROUGH_SECONDS, wanted=202
        ).seconds,
        "a batch of the relay": _relayed(connection, model, repeated // 10),
        "a status query": _timed(repeated, lambda: view(connection, tenant, "model")),
        "a status query through the adapter": clients.run(
            url, lambda: asking, clients=1, seconds=THROUGH_SECONDS, wanted=200
        ).seconds,
        "a heartbeat": _timed(repeated // 5, lambda: pulse.heartbeat(connection)),
    }


def _relayed(connection: psycopg.Connection, model: str, rounds: int) -> list[float]:
    """Seconds to claim, read and settle a full batch, with a product that takes no time.

    The agent's lanes deliver as well; so that none comes first, they find it all in another's hands.
    """
    wait_until_told(connection)
    took = []
    for _ in range(rounds):
        with connection.transaction():
            bulk.copy(
                connection, model, f"relay-{uuid.uuid4().hex[:8]}-", JOBS_PER_ROUND, told=False
            )
            connection.execute(
                "UPDATE byoc.stream SET claimed_by = 'bench', claimed_until = now() + interval '5 minutes'"
                " WHERE acked_seq < latest_seq AND claimed_by IS NULL"
            )
        began = time.perf_counter()
        deliver(connection, Taker(), lane="bench")
        took.append(time.perf_counter() - began)
    return took


def _timed(count: int, ask: Callable[[], object]) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return took


def _measures(found: Mapping[str, Times]) -> list[Measure]:
    sizes = list(found)
    return [
        Measure(
            what=f"{what} with {size} jobs"
            + (f", {NODES:,} AiiDA nodes" if size == sizes[-1] else ""),
            value=_median_ms(found[size][what]),
            unit="ms",
            baseline=_median_ms(found[sizes[0]][what]),
            against="with none",
            target=at_most(1.3),
        )
        for what in found[sizes[0]]
        for size in sizes[1:]
    ]


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * quantile(seconds, 0.5)
