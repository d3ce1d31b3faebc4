"""`verdi data byoc`: what is missing is said in one sentence."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiida.manage import get_config
from aiida.manage.configuration.config import Config
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiida_byoc.cli import byoc

POLICY = """
tenants = ["acme"]
[ceilings]
cpu = 1
memory_mib = 1
walltime_seconds = 1
[queues.main]
partition = "main"
[images]
"""

BROKER = "byoc.postgres"
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run a command; an unexpected exception is the test's."""

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            byoc, list(arguments), env=environment or None, catch_exceptions=False
        )

    return invoke


@pytest.fixture
def adapter_url() -> Any:
    """Something that answers /livez."""

    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Alive)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def options(tmp_path: Path, adapter_url: str) -> dict[str, str]:
    """Options of `init` that fit this machine, apart from the broker."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "node.pem").touch(mode=0o600)
    (tmp_path / "node.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "policy.toml").write_text(POLICY)
    return {
        "--node-id": "engine-node",
        "--adapter-url": adapter_url,
        "--key-file": str(tmp_path / "node.pem"),
        "--policy": str(tmp_path / "policy.toml"),
        "--image-store": str(tmp_path / "store"),
        "--computer": "cluster",
    }


@pytest.fixture
def own_profile(profile: Any) -> Iterator[Any]:
    """The profile, which a test may have changed: afterwards it is as it was."""
    before = copy.deepcopy(profile.dictionary)
    yield profile
    profile.dictionary.clear()
    profile.dictionary.update(before)
    get_config().update_profile(profile).store()


def init(run: Run, options: dict[str, str], **changes: str) -> Result:
    """Call `init` with some options changed."""
    named = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    words = [word for pair in {**options, **named}.items() for word in pair]
    return run("init", *words)


@pytest.mark.usefixtures("node", "own_profile")
def test_init_can_be_repeated(run: Run, options: dict[str, str]) -> None:
    """The tables are up to date, the settings are written, the next step is named."""
    results = [init(run, options), init(run, options)]

    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert "up to date" in results[1].output
    assert "agent run" in results[1].output


@pytest.mark.usefixtures("node", "own_profile")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"adapter_url": "http://127.0.0.1:1"},
            "the adapter cannot be reached at http://127.0.0.1:1",
        ),
        ({"adapter_url": "nowhere"}, "--adapter-url"),
        ({"node_id": "has spaces"}, "--node-id"),
        ({"node_id": "another"}, "belongs to the node engine-node"),
        ({"policy": "/nonexistent.toml"}, "the policy /nonexistent.toml cannot be read"),
        ({"key_file": "/nonexistent.pem"}, "the node's key /nonexistent.pem cannot be read"),
        (
            {"product_keys_file": "/nonexistent.json"},
            "--product-keys-file: the product's keys /nonexistent.json cannot be read",
        ),
        ({"computer": "nowhere"}, "there is no AiiDA computer nowhere"),
    ],
)
def test_init_says_what_is_wrong(
    run: Run, options: dict[str, str], changes: dict[str, str], sentence: str
) -> None:
    """One sentence, no traceback, exit status 1."""
    result = init(run, options, **changes)

    assert result.exit_code == 1
    assert sentence in result.output
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("node", "own_profile")
def test_init_names_a_missing_slurm(
    run: Run, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Slurm's commands on PATH."""
    monkeypatch.setenv("PATH", "/nonexistent")

    result = init(run, options)

    assert (result.exit_code, "Slurm is missing" in result.output) == (1, True)


@pytest.mark.usefixtures("node", "own_profile")
def test_init_names_a_missing_runtime(
    run: Run, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm is there, bubblewrap is not."""
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    monkeypatch.setenv("PATH", str(tmp_path))

    result = init(run, options)

    assert (
        result.exit_code,
        "the runtime bubblewrap cannot be used: bwrap missing" in result.output,
    ) == (1, True)


@pytest.mark.usefixtures("node")
def test_init_puts_the_profile_on_our_storage_and_a_broker(
    run: Run, options: dict[str, str], own_profile: Any
) -> None:
    """In AiiDA's own configuration, for every later process; a second time there is nothing to change."""
    own_profile.set_storage("core.psql_dos", own_profile.storage_config)

    first, second = init(run, options), init(run, options)

    stored = Config.from_file(get_config().filepath).get_profile(own_profile.name)
    assert (stored.storage_backend, stored.process_control_backend) == ("byoc.psql_dos", BROKER)
    assert stored.storage_config == own_profile.storage_config
    assert stored.options["daemon.worker_process_slots"] == 10_000
    assert f"is now on byoc.psql_dos and {BROKER}" in first.output
    assert "is now on" not in second.output


@pytest.mark.usefixtures("node")
def test_init_changes_no_profile_under_a_running_daemon(
    run: Run, options: dict[str, str], own_profile: Any
) -> None:
    """Its workers would go on with the old storage and broker; and what fits already may be repeated."""
    daemon = Path(get_config().filepaths(own_profile)["circus"]["pid"])
    daemon.write_text("1")
    try:
        refused = init(run, options)
        backend = own_profile.process_control_backend
        daemon.unlink()
        init(run, options)
        daemon.write_text("1")
        repeated = init(run, options)
    finally:
        daemon.unlink(missing_ok=True)

    assert (refused.exit_code, "run `verdi daemon stop`" in refused.output) == (1, True)
    assert backend is None
    assert repeated.exit_code == 0


@pytest.mark.usefixtures("node")
def test_the_status_tells_of_a_profile_that_init_has_not_seen(
    run: Run, options: dict[str, str], own_profile: Any
) -> None:
    """As after an operator chose another broker."""
    init(run, options)
    sound = run("status")
    own_profile.set_process_controller(None, {})
    changed = run("status")

    assert "profile   ok" in sound.output
    assert "profile   is on byoc.psql_dos and no broker" in changed.output


@pytest.mark.usefixtures("node", "own_profile")
def test_init_does_not_invent_the_address_of_rabbitmq(run: Run, options: dict[str, str]) -> None:
    """AiiDA has a command for it."""
    result = init(run, options, broker="core.rabbitmq")

    assert (result.exit_code, "verdi profile configure-broker" in result.output) == (1, True)


@pytest.mark.usefixtures("node")
def test_init_refuses_a_policy_that_could_fill_all_slots(
    run: Run, options: dict[str, str], own_profile: Any
) -> None:
    """Work chains in all slots would wait for ever for their calculations; the owner's number of slots stays."""
    own_profile.set_option("daemon.worker_process_slots", 399)

    result = init(run, options)

    assert (result.exit_code, "active_jobs = 200 needs 400 slots" in result.output) == (1, True)


def test_init_refuses_sqlite(options: dict[str, str], tmp_path: Path) -> None:
    """The ledger needs PostgreSQL; `verdi` says so, and how to get it."""
    verdi = str(Path(sys.executable).parent / "verdi")
    environment = {**os.environ, "AIIDA_PATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    made = [verdi, "presto", "-n", "-p", "light", "--no-broker"]
    subprocess.run(made, env=environment, check=True, capture_output=True, timeout=120)
    words = [word for pair in options.items() for word in pair]

    result = subprocess.run(
        [verdi, "-p", "light", "data", "byoc", "init", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 1
    assert "core.sqlite_dos; a management node needs core.psql_dos" in result.stderr
    assert "Traceback" not in result.stderr


def test_jobs_and_events_are_listed(run: Run, node: Any) -> None:
    """As a table for people, as JSON for programs."""
    submission = node.accept()
    node.launch(submission)
    job = node.events(submission)[0]["job_id"]

    table = run("jobs", "list", "--tenant", "acme")
    listed = json.loads(run("jobs", "list", "--json", "--state", "launched").output)
    shown = json.loads(run("jobs", "show", "--tenant", "acme", job).output)
    told = json.loads(run("events", "list", "--job", job, "--json").output)

    assert job in table.output
    assert job in [row["job_id"] for row in listed]
    assert shown["job"]["submission_id"] == submission
    assert [(row["seq"], row["state"]) for row in told] == [(1, "accepted"), (2, "launched")]


@pytest.mark.usefixtures("node")
def test_a_job_of_another_tenant_does_not_exist(run: Run, node: Any) -> None:
    """Job ids are looked up per tenant."""
    job = node.events(node.accept())[0]["job_id"]

    result = run("jobs", "show", "--tenant", "globex", job)

    assert (result.exit_code, job in result.output) == (1, False)
