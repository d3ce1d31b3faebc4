"""Acceptance: through adapter, channel and ledger, against the route alone and the ledger's claim alone."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from aiida_byoc.commands import ledger
from aiida_byoc.commands.policy import Policy
from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from benchmarks import clients, jobs
from benchmarks.clients import Answers
from benchmarks.figures import Measure, at_least, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.turns import Once, timed
from lab import process

__all__ = ["claiming", "measure", "submissions", "wait_until_told"]

CLIENTS = (1, 4, 16, 64)
WARM_SECONDS = 1.0
LEAST_MS = 0.1
"""CPU per command below which a part is not listed."""
START_SECONDS = 30.0
TOLD_SECONDS = 300.0


def measure(bench: Bench) -> list[Measure]:
    """p50, p99 and commands per second; the jobs stay accepted, nothing launches them."""
    lab = bench.lab.without_work()
    seconds, claimed = bench.scale(15, 3), bench.scale(1000, 200)
    with bench.lab.database() as connection:
        claim_one = claiming(bench, lab, connection)
        claim = 1000 * quantile([claim_one() for _ in range(claimed)], 0.5)
    bare = _serve_bare(bench)
    found: list[Measure] = []
    rates: dict[int, float] = {}
    for count in CLIENTS:
        alone = _asked(lab, bare, count, seconds)
        accounts = bench.lab.accounts()
        ours = _asked(lab, lab["adapter"]["url"], count, seconds)
        parts = {name: part.cpu for name, part in accounts.parts().items()}
        rates[count] = ours.rate
        bench.keep.raw(
            "acceptance", str(count), {"bare": vars(alone), "ours": vars(ours), "cpu": parts}
        )
        found += _measures(count, alone, ours, claim)
        found += _costs(count, parts, len(ours.seconds))
        with bench.lab.database() as connection:
            wait_until_told(connection)
    process.stop(bench.lab.paths, "answering")
    best = max(rates, key=lambda count: rates[count])
    found.append(
        Measure(
            what=f"commands accepted, best ({best} clients)",
            value=rates[best],
            unit="/s",
            baseline=1000 / claim,
            against="the ledger's claim alone, one connection",
            target=at_least(300, "value"),
        )
    )
    return found


def claiming(bench: Bench, lab: Mapping[str, Any], connection: psycopg.Connection) -> Once:
    """Claims one new command after the other in the ledger of this connection."""
    place = Policy.load(bench.lab.paths.root / "policy.toml").place

    def claim() -> float:
        name = uuid.uuid4().hex
        order = validated(SubmitJobCommand, jobs.command(lab, name), what="command")
        now = datetime.now(UTC)
        return timed(
            lambda: ledger.accept(connection, order, f"key-{name}", place=place, now=now)
        )()

    return claim


def submissions(lab: Mapping[str, Any], url: str) -> Callable[[], bytes]:
    """Makes one new submission after the other, as it goes over the wire."""
    mark = "the-name-of-the-job"
    body = json.dumps(jobs.command(lab, mark)).encode()
    path = f"{url}/v1/nodes/{lab['node']['node_id']}/jobs"
    token = lab["tenants"][0]["token"]

    def make() -> bytes:
        name = uuid.uuid4().hex
        return clients.request(
            "POST", path, token, body.replace(mark.encode(), name.encode()), f"key-{name}"
        )

    return make


def _asked(lab: Mapping[str, Any], url: str, count: int, seconds: float) -> Answers:
    make = submissions(lab, url)
    clients.run(url, make, clients=count, seconds=WARM_SECONDS, wanted=202)
    return clients.run(url, make, clients=count, seconds=seconds, wanted=202)


def _measures(count: int, alone: Answers, ours: Answers, claim: float) -> list[Measure]:
    who = "1 client" if count == 1 else f"{count} clients"
    if ours.others or alone.others:
        raise process.LabError(f"{who}: {ours.others} and {alone.others} answers were no 202")
    # Only one client at a time meets the claim of nobody else.
    both = alone.quantile_ms(0.5) + claim * count
    added = "route alone + claim" if count == 1 else f"route alone + {count} claims"
    return [
        Measure(
            what=f"acceptance p50, {who}",
            value=ours.quantile_ms(0.5),
            unit="ms",
            baseline=both,
            against=added,
            target=at_most(3) if count == 1 else None,
        ),
        Measure(
            what=f"acceptance p99, {who}",
            value=ours.quantile_ms(0.99),
            unit="ms",
            baseline=alone.quantile_ms(0.99),
            against="route alone",
        ),
        Measure(
            what=f"commands accepted, {who}",
            value=ours.rate,
            unit="/s",
            baseline=alone.rate,
            against="route alone",
        ),
    ]


def _costs(count: int, parts: Mapping[str, float], accepted: int) -> list[Measure]:
    """CPU of every part with what the relay tells meanwhile; what two cores can do at most follows from it."""
    told = {name: 1000 * cpu / accepted for name, cpu in parts.items()}
    shown = sorted((cost, name) for name, cost in told.items() if cost >= LEAST_MS)
    who = f"{count} client{'s' if count > 1 else ''}"
    return [
        Measure(what=f"CPU of a command, {who}: {name}", value=cost, unit="ms")
        for cost, name in [*reversed(shown), (sum(told.values()), "all")]
    ]


def _serve_bare(bench: Bench) -> str:
    port = bench.lab.paths.ports("answering")[0]
    daemon = process.spawn(
        bench.lab.paths,
        "answering",
        [sys.executable, "-m", "benchmarks.answering", str(port)],
        env={"BYOC_ADAPTER_CONFIG": str(bench.lab.paths.root / "adapter.json")},
    )

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", timeout=2).status_code == 404
        except httpx.TransportError:
            return False

    process.wait_until(answers, START_SECONDS, "the bare route to answer", needs=[daemon])
    return f"http://127.0.0.1:{port}"


def wait_until_told(connection: psycopg.Connection) -> None:
    """Let the relay finish, which is no part of acceptance, but shares the machine with it."""
    query = "SELECT count(*) FROM byoc.stream WHERE acked_seq < latest_seq"
    process.wait_until(
        lambda: connection.execute(query).fetchone() == (0,), TOLD_SECONDS, "the relay"
    )
