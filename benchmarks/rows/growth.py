"""Growth: the same questions to a ledger and outbox that hold ever more, against themselves with none.

What needs no more than a connection is asked in turns of the node's database, which is full, and of another one in the
same server, where there is one job; the agent is away meanwhile. What goes through the adapter needs the agent, which
has one database: it is asked with many, and with none as soon as these are forgotten.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg

from aiida_byoc.agent.heartbeat import Pulse
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, Acknowledgement
from aiida_byoc.events.relay import deliver
from aiida_byoc.node import NodeSettings
from benchmarks import bulk, clients
from benchmarks.figures import Measure, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.rows.acceptance import claiming, submissions, wait_until_told
from benchmarks.turns import Once, in_turns, on_one_core, timed
from lab import process

__all__ = ["Taker", "measure"]

SIZES = (10_000, 1_000_000)
QUICK_SIZES = (10_000, 100_000)
NODES = 10_000
JOBS_PER_BATCH = 20
EACH = 5
"""So often in a row, before the other's turn."""
WARM = 10
"""So often before it counts: plans are made, pages are read."""
THROUGH_SECONDS = 3
"""How long one client submits, and one asks, through the adapter, before it counts and then."""
START_SECONDS = 30.0

Times = dict[str, tuple[list[float], list[float]]]
"""Seconds of each repetition with none and with many jobs, by what was done."""


class Taker:
    """A product that takes everything."""

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Acknowledge all."""
        reached: dict[str, int] = {}
        for event in batch:
            reached[event["data"]["submission_id"]] = event["data"]["seq"] + 1
        return Acknowledgement(next_seq=reached)


@dataclass(frozen=True)
class Ledger:
    """One of the two, and the job in it of which all others are copies."""

    connection: psycopg.Connection
    submission: str
    job: str


def measure(bench: Bench) -> list[Measure]:
    """Acceptance, launch, relay, heartbeat and status at each size; the last also with AiiDA's nodes."""
    lab = bench.lab.without_work()
    sizes = QUICK_SIZES if bench.quick else SIZES
    found: dict[str, Times] = {}
    with bench.lab.database() as connection:
        for size in sizes:
            with bench.lab.without_agent(), bench.lab.another_ledger() as another:
                bulk.empty(connection)
                none = _with_one(bench, lab, another)
                many = _with_one(bench, lab, connection)
                bulk.copy(connection, many.submission, "copy-", size, told=True)
                if size == sizes[-1]:
                    bulk.nodes(connection, NODES)
                with on_one_core(*(it.connection.info.backend_pid for it in (none, many))):
                    direct = _asked_directly(bench, lab, none, many, size)
                bulk.withdraw(connection)  # the launcher, which is started too, finds nothing
                _tell(connection)
                bulk.tidy(connection)
            found[f"{size:,}"] = direct | _asked_through_the_adapter(bench, lab, many)
    bench.keep.raw("growth", "seconds with none, and with so many", found)
    return _measures(found)


def _with_one(bench: Bench, lab: Mapping[str, Any], connection: psycopg.Connection) -> Ledger:
    """Let an empty ledger have one job."""
    submission = bulk.tell_one(connection, bench.lab.paths, lab)
    row = connection.execute("SELECT job_id FROM byoc.job").fetchone()
    [job] = row or ()
    return Ledger(connection, submission, job)


def _tell(connection: psycopg.Connection) -> None:
    while deliver(connection, Taker()):
        pass


def _asked_directly(
    bench: Bench, lab: Mapping[str, Any], none: Ledger, many: Ledger, size: int
) -> Times:
    """In this order the one job of the empty ledger is alone until the relay is given others."""
    both = (none, many)
    tenant = lab["tenants"][0]["tenant_id"]
    pulse = Pulse(
        NodeSettings.load(
            NodeSettings.path(Path(lab["node"]["aiida_path"]) / ".aiida", lab["node"]["profile"])
        )
    )
    rounds, batches = bench.scale(60, 20), bench.scale(12, 8)
    for each in both:
        _tell(each.connection)
    with bench.lab.superuser() as superuser:
        superuser.execute("CHECKPOINT")
    found: Times = {}
    found["a status query"] = _compared(
        both, lambda it: timed(lambda: view(it.connection, tenant, it.job)), rounds
    )
    found["a heartbeat"] = _compared(
        both, lambda it: timed(lambda: pulse.heartbeat(it.connection)), rounds
    )
    found["a batch of the relay"] = _compared(both, lambda it: partial(_relayed, it), batches)
    found["the ledger's claim"] = _compared(
        both, lambda it: claiming(bench, lab, it.connection), rounds
    )
    with (
        none.connection.transaction(force_rollback=True),
        many.connection.transaction(force_rollback=True),
    ):
        bulk.waiting(many.connection, many.submission, size)
        found["the launcher's question, all of them waiting"] = _compared(both, _choosing, rounds)
    return found


def _compared(
    both: tuple[Ledger, Ledger], make: Callable[[Ledger], Once], rounds: int
) -> tuple[list[float], list[float]]:
    none, many = map(make, both)
    in_turns(none, many, rounds=1, each=WARM)
    return in_turns(none, many, rounds=rounds, each=EACH)


def _relayed(ledger: Ledger) -> float:
    """Claim, read and settle a full batch, with a product that takes no time."""
    name = f"relay-{uuid.uuid4().hex[:8]}-"
    bulk.copy(ledger.connection, ledger.submission, name, JOBS_PER_BATCH, told=False)
    began = time.perf_counter()
    delivered = deliver(ledger.connection, Taker())
    took = time.perf_counter() - began
    assert delivered == MAX_EVENT_BATCH
    return took


def _choosing(ledger: Ledger) -> Once:
    """Finds the next job among all that wait, of which PostgreSQL's statistics do not know yet."""

    def choose() -> None:
        with ledger.connection.transaction(force_rollback=True):
            assert next_job(ledger.connection, Limits()) is not None

    return timed(choose)


def _asked_through_the_adapter(bench: Bench, lab: Mapping[str, Any], many: Ledger) -> Times:
    with_many = _through(bench, lab, many)
    bulk.empty(many.connection)
    none = _with_one(bench, lab, many.connection)
    with_none = _through(bench, lab, none)
    return {what: (with_none[what], with_many[what]) for what in with_many}


def _through(bench: Bench, lab: Mapping[str, Any], ledger: Ledger) -> dict[str, list[float]]:
    """Seconds of one client's requests."""
    url, token = lab["adapter"]["url"], lab["tenants"][0]["token"]
    path = f"{url}/v1/nodes/{lab['node']['node_id']}/jobs/{ledger.job}"
    asking = clients.request("GET", path, token)
    wait_until_told(ledger.connection)
    process.wait_until(
        lambda: httpx.get(path, headers={"Authorization": f"Bearer {token}"}).is_success,
        START_SECONDS,
        "the agent to answer",
    )
    with bench.lab.superuser() as superuser:
        superuser.execute("CHECKPOINT")
    things = {
        "a status query through the adapter": (lambda: asking, 200),
        "acceptance through the adapter": (submissions(lab, url), 202),
    }
    return {what: _asked(url, make, wanted) for what, (make, wanted) in things.items()}


def _asked(url: str, make: Callable[[], bytes], wanted: int) -> list[float]:
    for _ in ("warm", "counts"):
        answers = clients.run(url, make, clients=1, seconds=THROUGH_SECONDS, wanted=wanted)
    return answers.seconds


def _measures(found: Mapping[str, Times]) -> list[Measure]:
    last = list(found)[-1]
    return [
        Measure(
            what=f"{what} with {size} jobs" + (f", {NODES:,} AiiDA nodes" if size == last else ""),
            value=_median_ms(many),
            unit="ms",
            baseline=_median_ms(none),
            against="with none",
            target=at_most(1.3),
        )
        for what in found[last]
        for size in found
        for none, many in [found[size][what]]
    ]


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * quantile(seconds, 0.5)
