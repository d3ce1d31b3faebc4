"""AiiDA in this process, on a real Postgres and a real Slurm; no daemon, no broker, no adapter."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from aiida.engine.runners import Runner
from aiida.manage import get_manager
from aiida.orm import Computer, InstalledCode, load_node
from aiida.tools.pytest_fixtures import (  # noqa: F401
    aiida_config_factory,
    aiida_config_tmp,
    aiida_manager,
    aiida_profile_factory,
)
from plumpy.persistence import LoadSaveContext

from aiida_byoc.arrays.rules import Arrays
from aiida_byoc.commands import ledger
from aiida_byoc.commands.data import Caps
from aiida_byoc.commands.launcher import Launcher
from aiida_byoc.commands.placement import Placement
from aiida_byoc.commands.recovery import Recovery
from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import migrate
from aiida_byoc.node import NodeSettings
from aiida_byoc.runtimes.images import ImageStore
from lab import image, postgres, slurm
from lab.paths import LabPaths
from tests.engine.batch import RUNTIMES, USERS, Site, sites
from tests.labs import scratch_lab

NODE_ID = "engine-node"


@pytest.fixture(scope="session")
def paths() -> Iterator[LabPaths]:
    """A lab directory for Postgres, Slurm and the image."""
    with scratch_lab("engine") as paths:
        yield paths
        slurm.stop(paths)


@pytest.fixture(scope="session")
def cluster(paths: LabPaths) -> Iterator[slurm.Slurm]:
    """A running Slurm that the commands of this process find."""
    cluster = slurm.start(paths)
    os.environ["SLURM_CONF"] = str(cluster.conf)
    yield cluster
    del os.environ["SLURM_CONF"]


@pytest.fixture
def scontrol(cluster: slurm.Slurm) -> Callable[..., str]:
    """Talk to the controller."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, check=True
        ).stdout

    return run


@pytest.fixture(scope="session")
def built(paths: LabPaths) -> image.Image:
    """The demonstration image, in the node's store."""
    built = image.build(paths)
    ImageStore(paths.directory("store")).add(built.layout_dir, built.digest)
    return built


@dataclass
class Node:
    """A management node without its agent: what the tests drive."""

    settings: NodeSettings
    connection: psycopg.Connection
    launcher: Launcher
    runner: Runner
    digest: str
    dispatched: list[int]

    def alter(self, statement: str) -> None:
        """Change the schema; AiiDA's session would still hold locks from its last reads."""
        get_manager().get_profile_storage().get_session().rollback()
        self.connection.execute(statement)

    def accept(self, *argv: str, **changes: Any) -> str:
        """Put a job into the ledger; return its submission id."""
        placed = changes.pop("placed", {})
        command: dict[str, Any] = {
            "schema_version": "1",
            "tenant_id": "acme",
            "workspace_id": "w",
            "job_id": f"job-{uuid.uuid4().hex[:12]}",
            "management_node_id": NODE_ID,
            "execution_profile": {"queue_name": "main"},
            "resource_shape": {"cpu": 1, "memory_mib": 128, "walltime_seconds": 120},
            "workload": {
                "kind": "container",
                "image": f"localhost/byoc/demo@{self.digest}",
                "argv": list(argv) or ["true"],
                **changes.pop("workload", {}),
            },
            "requested_by": {"user_id": "u"},
            **{
                name: change
                for name, change in changes.items()
                if name not in {"placement", "caps", "runtime"}
            },
        }
        placement = Placement(
            **{
                "partition": "main",
                "image_digest": changes.get("placement", self.digest),
                "runtime": changes.get("runtime", "bubblewrap"),
                "data": Caps(**changes.pop("caps", {})),
                "recovery": Recovery(memory_ceiling_mib=1024),
                "arrays": Arrays() if command["workload"]["kind"] == "array" else None,
                **placed,
            }
        )
        acceptance, _ = ledger.accept(
            self.connection,
            validated(SubmitJobCommand, command),
            str(uuid.uuid4()),
            place=lambda _: placement,
            now=datetime.now(UTC),
        )
        return acceptance.submission_id

    def launch(self, submission_id: str) -> int:
        """Let the launcher create the work chain; return its pk."""
        self.launcher.step()
        row = self.connection.execute(
            "SELECT process_pk FROM byoc.job WHERE submission_id = %s", (submission_id,)
        ).fetchone()
        assert row is not None
        assert row[0] is not None
        return int(row[0])

    def load(self, pk: int, runner: Any = None) -> Any:
        """The process as a worker gets it: from its checkpoint."""
        runner = runner or self.runner
        bundle = runner.persister.load_checkpoint(pk)
        return bundle.unbundle(LoadSaveContext(runner=runner, loop=runner.loop))

    def run(self, submission_id: str) -> Any:
        """Launch the job and do what a worker does until it has ended; return the work chain's node."""
        pk = self.launch(submission_id)
        self.runner.loop.run_until_complete(self.load(pk).step_until_terminated())
        return load_node(pk)

    def events(self, submission_id: str) -> list[dict[str, Any]]:
        """The data of all events of a job, by seq."""
        rows = self.connection.execute(
            "SELECT body -> 'data' FROM byoc.event WHERE submission_id = %s ORDER BY seq",
            (submission_id,),
        )
        return [row[0] for row in rows]

    def states(self, submission_id: str) -> list[str]:
        """The states a job went through."""
        return [event["state"] for event in self.events(submission_id)]


@pytest.fixture(scope="session")
def server(paths: LabPaths) -> postgres.Postgres:
    """A running PostgreSQL."""
    return postgres.start(paths)


@pytest.fixture(scope="session")
def profile(
    paths: LabPaths,
    server: postgres.Postgres,
    aiida_config_factory: Callable[..., Any],  # noqa: F811
    aiida_profile_factory: Callable[..., Any],  # noqa: F811
) -> Iterator[Any]:
    """A loaded profile on PostgreSQL."""
    storage_config = {
        "database_engine": "postgresql_psycopg",
        "database_hostname": server.host,
        "database_port": server.port,
        "database_username": server.user,
        "database_password": server.password,
        "database_name": server.database,
        "repository_uri": paths.directory("repository").as_uri(),
    }
    with (
        aiida_config_factory(paths.directory("aiida")) as config,
        aiida_profile_factory(
            config, storage_backend="byoc.psql_dos", storage_config=storage_config
        ) as profile,
    ):
        yield profile


@pytest.fixture(scope="session")
def computer(profile: Any, paths: LabPaths, cluster: slurm.Slurm) -> Computer:
    """The cluster, as AiiDA knows it."""
    computer = Computer(
        label="cluster",
        hostname="localhost",
        transport_type="core.local",
        scheduler_type="byoc.slurm",
        workdir=str(paths.directory("work")),
    ).store()
    computer.set_minimum_job_poll_interval(0.2)
    computer.set_default_mpiprocs_per_machine(1)
    computer.configure(safe_interval=0.0, use_login_shell=False)
    InstalledCode(
        label="byoc-in-job", computer=computer, filepath_executable="/usr/bin/python3"
    ).store()
    return computer


@pytest.fixture(scope="session")
def node(profile: Any, computer: Computer, built: image.Image, paths: LabPaths) -> Iterator[Node]:
    """The node on this profile."""
    connection = connect(profile.storage_config, application="test")
    migrate(connection)
    connection.execute("INSERT INTO byoc.node (node_id) VALUES (%s)", (NODE_ID,))
    settings = NodeSettings.model_validate(
        {
            "node_id": NODE_ID,
            "adapter_url": "http://127.0.0.1:1",
            "key_file": paths.root / "unused.pem",
            "policy_file": paths.root / "unused.toml",
            "image_store": paths.directory("store"),
            "code": "byoc-in-job@cluster",
        }
    )
    runner = get_manager().get_runner()
    dispatched: list[int] = []
    yield Node(
        settings=settings,
        connection=connection,
        launcher=Launcher(runner, settings, dispatched.append),
        runner=runner,
        digest=built.digest,
        dispatched=dispatched,
    )
    connection.close()


@pytest.fixture(scope="session")
def users(paths: LabPaths, cluster: slurm.Slurm, built: image.Image) -> dict[str, Site]:
    """The lab's users: `me`, and with root's help an `other`."""
    return dict(zip(USERS, sites(paths, built).values(), strict=True))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each of the runtimes."""
    return str(request.param)


@pytest.fixture(params=USERS)
def site(request: pytest.FixtureRequest, users: dict[str, Site]) -> Site:
    """Each of the users."""
    return users[request.param]


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubts about a Slurm job are told at once and end within seconds."""
    monkeypatch.setattr("aiida_byoc.calculations.waiting._TELL_DOUBT_SECONDS", 0.0)
    monkeypatch.setattr("aiida_byoc.calculations.waiting._MOST_SECONDS_BETWEEN_LOOKS", 1.0)
    monkeypatch.setattr("aiida_byoc.commands.stopping._LONGEST_PAUSE", 1.0)
    monkeypatch.setattr("aiida_byoc.schedulers.verdict.MARGIN", 3.0)


@pytest.fixture(autouse=True)
def nothing_waits(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test accepted and did not bring to an end is not the next one's."""
    yield
    if "node" in request.fixturenames:
        node: Node = request.getfixturevalue("node")
        node.connection.execute(
            "UPDATE byoc.job SET state = 'cancelled' WHERE state NOT IN ('succeeded', 'failed')"
        )
