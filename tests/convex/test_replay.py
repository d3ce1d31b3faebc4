"""I12, I15: what a product lost comes back from the node's outbox, identical; relay, adapter and functions are real."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import HttpUrl

from adapter.auth import NodeIdentity
from adapter.convex import Convex
from adapter.delivery import Delivery
from adapter.settings import ConvexSettings
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.database.migrate import migrate
from aiida_byoc.events import redelivery
from aiida_byoc.events.relay import deliver
from tests.convex.conftest import Deployment, Lab, Tenant
from tests.postgres.jobs import accept, report, walk
from tests.postgres.server import server

JOBS = 12
OURS = ("applied_at", "received_at", "outcome")
"""What the product adds: when, and whether it was news when it came."""


@pytest.fixture
def outbox() -> Iterator[psycopg.Connection]:
    """The tables of a node, in a server of their own."""
    with server() as running:
        where = {"host": "localhost", "port": running.port, "user": running.username}
        with psycopg.connect(**where, dbname="postgres", autocommit=True) as connection:
            migrate(connection)
            yield connection


class Product:
    """The adapter's delivery and a deployment of its own, empty but for the tenant."""

    def __init__(self, stack: ExitStack, lab: Lab, suffix: str, directory: Path) -> None:
        served, _ = lab.ready()
        client = stack.enter_context(httpx.Client(base_url=served.url, timeout=30))
        self.tenant = Tenant(Deployment(served, lab.product, lab.service, client), suffix)
        key = directory / f"{lab.service.kid}.pem"
        pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key.write_bytes(lab.service.key.private_bytes(*pem))
        self.settings = ConvexSettings(
            url=HttpUrl(served.url),
            service_issuer=lab.service.iss,
            service_key_file=key,
            key_id=lab.service.kid,
        )

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        """Deliver as the adapter's route does."""

        async def post() -> Acknowledgement:
            convex = Convex(self.settings)
            try:
                node = NodeIdentity(self.tenant.node_id, frozenset({self.tenant.tenant_id}))
                return await Delivery(convex).deliver(node, batch)
            finally:
                await convex.close()

        return asyncio.run(post())

    def shown(self) -> dict[str, Any]:
        """All that users see: every job and its timeline, without what the product itself adds."""
        jobs = {job["job_id"]: stripped(job) for job in self.tenant.pages("jobs:list", 100)}
        lines = {
            name: [stripped(one) for one in self.tenant.pages("jobs:timeline", 100, job_id=name)]
            for name in jobs
        }
        return {"jobs": jobs, "timelines": lines}


def stripped(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in OURS}


@pytest.fixture
def new_product(new_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Callable[[], Product]]:
    with ExitStack() as stack:
        yield lambda: Product(stack, new_lab(), "0123456789ab", tmp_path)


@contextmanager
def nothing_left(connection: psycopg.Connection, product: Product) -> Iterator[None]:
    """Deliver until the product has everything."""
    yield
    for _ in range(200):
        connection.execute("UPDATE byoc.stream SET not_before = now()")
        deliver(connection, product)
        left = connection.execute(
            "SELECT count(*) FROM byoc.stream WHERE acked_seq < latest_seq"
        ).fetchone()
        if left == (0,):
            return
    raise AssertionError(f"undelivered: {left}")


def live(connection: psycopg.Connection, product: Product, seed: int) -> list[str]:
    """Jobs of all kinds: retried, held, cancelled, failed, succeeded, and some that go on."""
    tenant = product.tenant
    connection.execute("INSERT INTO byoc.node (node_id) VALUES (%s)", (tenant.node_id,))
    chance = random.Random(seed)  # noqa: S311  (no secret)
    submissions = []
    for number in range(JOBS):
        submission = accept(
            connection,
            f"job-{number}",
            tenant_id=tenant.tenant_id,
            management_node_id=tenant.node_id,
        )
        walk(connection, submission, "launched")
        for attempt in range(1, chance.randint(2, 5)):
            slurm = {"scheduler": {"job_id": str(chance.randint(1, 999)), "nodes": ["c1"]}}
            report(connection, submission, "queued", attempt=attempt, facts=slurm)
            if chance.random() < 0.4:
                walk(connection, submission, "held", "queued")
            report(connection, submission, "running", attempt=attempt)
        if end := chance.choice(["succeeded", "failed", "cancelled", None]):
            walk(connection, submission, end)
        submissions.append(submission)
    return submissions


def test_i12_a_dropped_product_is_rebuilt_to_an_identical_state(
    outbox: psycopg.Connection, new_product: Callable[[], Product]
) -> None:
    first = new_product()
    with nothing_left(outbox, first):
        live(outbox, first, seed=1)
    before = first.shown()
    assert len(before["jobs"]) == JOBS
    assert {"succeeded", "failed", "cancelled"} <= {job["state"] for job in before["jobs"].values()}

    empty = new_product()
    assert empty.shown() == {"jobs": {}, "timelines": {}}
    with nothing_left(outbox, empty):
        replayed = redelivery.replay(outbox)

    assert replayed.events == sum(len(one) for one in before["timelines"].values())
    assert empty.shown() == before
    with nothing_left(outbox, empty):
        assert redelivery.replay(outbox).events == replayed.events
    assert empty.shown() == before, "once more changes nothing"
