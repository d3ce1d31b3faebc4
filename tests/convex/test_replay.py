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
from adapter.deployment import Deployment as Way
from adapter.settings import ConvexSettings
from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.database.migrate import migrate
from aiida_byoc.events import redelivery
from aiida_byoc.events.relay import deliver
from tests.convex.conftest import Deployment, Lab, Tenant
from tests.postgres.jobs import accept, report, walk
from tests.postgres.server import server

JOBS = 12
OURS = ("applied_at", "received_at", "outcome")
"""What the product adds: when, and whether it was news when it came."""


class Database:
    """The tables of a node, in a server of their own, with a backup."""

    def __init__(self, port: int, user: str) -> None:
        self._where = {"host": "localhost", "port": port, "user": user, "autocommit": True}
        self._execute("CREATE DATABASE node")
        with self.open() as connection:
            migrate(connection)

    def open(self) -> psycopg.Connection:
        return psycopg.connect(**self._where, dbname="node")

    def back_up(self) -> None:
        self._execute("CREATE DATABASE backup TEMPLATE node")

    def restore(self) -> None:
        """As `pg_restore` does after `DROP DATABASE`: another database of the same name."""
        self._execute("DROP DATABASE node WITH (FORCE)")
        self._execute("CREATE DATABASE node TEMPLATE backup")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(**self._where, dbname="postgres") as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    with server() as running:
        yield running


@pytest.fixture
def database(postgres: Any) -> Iterator[Database]:
    """A new one for each test."""
    yield Database(postgres.port, postgres.username)
    with psycopg.connect(
        host="localhost",
        port=postgres.port,
        user=postgres.username,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        for name in ("node", "backup"):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.fixture
def outbox(database: Database) -> Iterator[psycopg.Connection]:
    with database.open() as connection:
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
            way = Way(self.settings)
            try:
                node = NodeIdentity(
                    self.tenant.node_id, frozenset({self.tenant.tenant_id}), "key-1"
                )
                return await Delivery(Convex(way)).deliver(node, batch)
            finally:
                await way.close()

        return asyncio.run(post())

    def accept(self, epoch: str) -> None:
        """Believe an epoch, as the product's operator."""
        deployment = self.tenant.deployment
        args = {"node_id": self.tenant.node_id, "epoch": epoch}
        answer = deployment.call("mutation", "nodes:acceptEpoch", args, deployment.admin)
        assert answer["value"] == {"changed": True}, answer

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


def test_i15_a_product_that_lost_everything_asks_for_it_when_it_hears_of_a_job(
    outbox: psycopg.Connection, new_product: Callable[[], Product]
) -> None:
    """Without an operator, for every job that has anything new to tell."""
    first, empty = new_product(), new_product()
    with nothing_left(outbox, first):
        submissions = live(outbox, first, seed=3)
    with nothing_left(outbox, empty):
        told = [report(outbox, job, "queued", attempt=9) is not None for job in submissions]
    with nothing_left(outbox, first):
        redelivery.replay(outbox)

    shown, whole = empty.shown(), first.shown()
    going_on = {f"job-{number}" for number, alive in enumerate(told) if alive}
    assert 0 < len(going_on) < JOBS
    assert set(shown["jobs"]) == going_on
    for name in going_on:
        assert shown["jobs"][name] == whole["jobs"][name]
        assert shown["timelines"][name] == whole["timelines"][name]


def test_i12_a_product_that_is_rebuilt_believes_the_epochs_in_their_order(
    outbox: psycopg.Connection, new_product: Callable[[], Product]
) -> None:
    first = new_product()
    with nothing_left(outbox, first):
        submissions = live(outbox, first, seed=2)
    old, new = redelivery.epoch(outbox), redelivery.epoch(outbox, new=True)
    first.accept(new)
    with nothing_left(outbox, first):
        for submission in submissions:
            report(outbox, submission, "queued", attempt=9)
    outbox.execute(
        "UPDATE byoc.event SET occurred_at = occurred_at + interval '1 hour'"
        " WHERE body #>> '{data,epoch}' = %s",
        (new,),
    )
    before = first.shown()
    assert {job["epoch"] for job in before["jobs"].values()} == {old, new}

    empty = new_product()
    kept = [each["epoch"] for each in redelivery.epochs(outbox)]
    assert kept == [old, new]
    for epoch in kept:
        empty.accept(epoch)
    with nothing_left(outbox, empty):
        redelivery.replay(outbox)
    assert empty.shown() == before


def test_i16_a_restored_node_overwrites_nothing_until_its_epoch_is_accepted(
    database: Database, new_product: Callable[[], Product]
) -> None:
    product = new_product()
    with database.open() as outbox, nothing_left(outbox, product):
        product_tenant = product.tenant
        outbox.execute("INSERT INTO byoc.node (node_id) VALUES (%s)", (product_tenant.node_id,))
        job = accept(
            outbox,
            "job-1",
            tenant_id=product_tenant.tenant_id,
            management_node_id=product_tenant.node_id,
        )
        walk(outbox, job, "launched", "queued")
    database.back_up()
    with database.open() as outbox, nothing_left(outbox, product):
        walk(outbox, job, "running", "held")
    before = product.shown()

    database.restore()
    with database.open() as outbox:
        walk(outbox, job, "succeeded")
        with pytest.raises(ProblemError, match="epoch-mismatch"):
            deliver(outbox, product)
        assert product.shown() == before
        assert outbox.execute("SELECT acked_seq, quarantine FROM byoc.stream").fetchall() == [
            (3, None)
        ]

        product.accept(redelivery.epoch(outbox))
        with nothing_left(outbox, product):
            pass

    [shown] = product.shown()["jobs"].values()
    assert (shown["seq"], shown["state"]) == (4, "succeeded")
    assert len(product.shown()["timelines"]["job-1"]) == 6, "both histories stay on the timeline"
