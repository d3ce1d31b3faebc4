"""Growth: the same questions to a node whose ledger and outbox hold ever more, against themselves at nothing.

With none is measured before and after everything else, and what was quicker counts: the first questions to a node that
was just started, or a busy machine, would flatter all others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events.relay import deliver
from aiida_byoc.node import NodeSettings
from benchmarks import bulk, clients
from benchmarks.figures import Measure, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.rows.acceptance import claims, submissions, wait_until_told

__all__ = ["Taker", "measure"]

SIZES = (10_000, 1_000_000)
QUICK_SIZES = (10_000, 100_000)
NODES = 10_000
JOBS_PER_ROUND = 20
THROUGH_SECONDS = 3
"""How long one client submits, and one asks, through the adapter."""
WARM = 20
WARM_SECONDS = 1
WARM_ROUNDS = 5
"""So often, or so long, each is done before it counts: plans are made, pages are read, connections are open."""

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
    """Acceptance, launch, relay, heartbeat and status at each size; the last also with AiiDA's nodes."""
    lab = bench.lab.without_work()
    sizes = QUICK_SIZES if bench.quick else SIZES
    found: dict[str, Times] = {}
    with bench.lab.database() as connection:
        model = _begun(bench, lab, connection)
        before = _times(bench, lab, connection, model, 0)
        held = 0
        for size in sizes:
            bulk.copy(connection, model, f"to-{size}-", size - held, told=True)
            held = size
            if size == sizes[-1]:
                bulk.nodes(connection, NODES)
            found[f"{size:,}"] = _times(bench, lab, connection, model, size)
        model = _begun(bench, lab, connection)
        after = _times(bench, lab, connection, model, 0)
    bench.keep.raw("growth", "seconds", {"none, before": before, **found, "none, after": after})
    none = {what: min(before[what], after[what], key=_median_ms) for what in before}
    return _measures(none, found)


def _begun(bench: Bench, lab: Mapping[str, Any], connection: psycopg.Connection) -> str:
    """Forget all jobs but one, whose submission is returned."""
    bulk.empty(connection)
    model = bulk.tell_one(connection, bench.lab.paths, lab)
    wait_until_told(connection)
    return model


def _times(
    bench: Bench,
    lab: Mapping[str, Any],
    connection: psycopg.Connection,
    model: str,
    size: int,
) -> Times:
    with bench.lab.superuser() as superuser:
        superuser.execute("CHECKPOINT")
    repeated = bench.scale(300, 100)
    tenant = lab["tenants"][0]["tenant_id"]
    url = lab["adapter"]["url"]
    row = connection.execute("SELECT job_id FROM byoc.job WHERE submission_id = %s", (model,))
    [name] = row.fetchone() or ()
    settings = NodeSettings.load(
        NodeSettings.path(Path(lab["node"]["aiida_path"]) / ".aiida", lab["node"]["profile"])
    )
    pulse = Pulse(settings)
    asking = clients.request(
        "GET",
        f"{url}/v1/nodes/{lab['node']['node_id']}/jobs/{name}",
        lab["tenants"][0]["token"],
    )
    claims(bench, lab, WARM)
    return {
        "the ledger's claim": claims(bench, lab, repeated),
        "acceptance through the adapter": _asked(url, submissions(lab, url), 202),
        "a batch of the relay": _relayed(connection, model, max(50, repeated // 10)),
        "a status query": _timed(repeated, lambda: view(connection, tenant, name)),
        "a status query through the adapter": _asked(url, lambda: asking, 200),
        "a heartbeat": _timed(repeated, lambda: pulse.heartbeat(connection)),
        "the launcher's question, all of them waiting": _chosen(connection, model, size, repeated),
    }


def _asked(url: str, make: Callable[[], bytes], wanted: int) -> list[float]:
    """Seconds of one client's requests."""
    for seconds in (WARM_SECONDS, THROUGH_SECONDS):
        answers = clients.run(url, make, clients=1, seconds=seconds, wanted=wanted)
    return answers.seconds


def _chosen(connection: psycopg.Connection, model: str, size: int, repeated: int) -> list[float]:
    """Seconds to find the next job among so many more that wait, of which PostgreSQL's statistics do not know yet."""

    def choose() -> None:
        with connection.transaction(force_rollback=True):
            assert next_job(connection, Limits()) is not None

    with connection.transaction(force_rollback=True):
        bulk.waiting(connection, model, size)
        return _timed(repeated, choose)


def _relayed(connection: psycopg.Connection, model: str, rounds: int) -> list[float]:
    """Seconds to claim, read and settle a full batch, with a product that takes no time.

    The agent's lanes deliver as well; so that none comes first, they find it all in another's hands.
    """
    wait_until_told(connection)
    took = []
    for _ in range(WARM_ROUNDS + rounds):
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
    connection.execute(  # whatever else was in our hands is the agent's again
        "UPDATE byoc.stream SET claimed_by = NULL, claimed_until = NULL WHERE claimed_by = 'bench'"
    )
    return took[WARM_ROUNDS:]


def _timed(count: int, ask: Callable[[], object]) -> list[float]:
    took = []
    for _ in range(WARM + count):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return took[WARM:]


def _measures(none: Times, found: Mapping[str, Times]) -> list[Measure]:
    last = list(found)[-1]
    return [
        Measure(
            what=f"{what} with {size} jobs" + (f", {NODES:,} AiiDA nodes" if size == last else ""),
            value=_median_ms(found[size][what]),
            unit="ms",
            baseline=_median_ms(none[what]),
            against="with none",
            target=at_most(1.3),
        )
        for what in none
        for size in found
    ]


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * quantile(seconds, 0.5)
