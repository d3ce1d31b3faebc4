"""The management node of a lab: an AiiDA profile on the lab's Postgres and Slurm, its daemon, and our agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.credentials import Credentials
from lab.image import Image
from lab.paths import LabPaths
from lab.policy import QUEUE, owners_policy
from lab.postgres import Postgres
from lab.proctable import MARK
from lab.rabbitmq import RabbitMQ
from lab.slurm import Slurm

__all__ = [
    "BROKER",
    "NODE_ID",
    "PROFILE",
    "QUEUE",
    "Node",
    "environment",
    "spawn_agent",
    "start",
    "stop",
]

NODE_ID = "lab-node"
PROFILE = "byoc"
COMPUTER = "lab"
BROKER = "byoc.postgres"
WORKERS = 2
CODE = "bash"
PLUGINS = Path(__file__).parent / "plugins"
START_SECONDS = 60.0
COMMAND_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """A running management node."""

    node_id: str
    profile: str
    broker: str
    workers: int
    aiida_path: Path
    agent_pid: int
    log: Path
    daemon_log: Path


UNSIGNED = "\n[signatures]\nrequired = false  # users may also ask the adapter itself\n"


@dataclass(frozen=True)
class Enrolment:
    """How a node joins that nobody declared: with a token of the product's, and options of `node enroll`."""

    token: str
    options: Sequence[str]


def environment(paths: LabPaths, slurm: Slurm) -> dict[str, str]:
    """What every command of the node needs. TMPDIR: AiiDA's brokers and supervisors put their sockets there.

    `crash` and `bin` are empty: a test arms crash points in the one, and puts programs before all others in the other.
    """
    programs = Path(sys.executable).parent
    before = f"{paths.directory('bin')}{os.pathsep}{programs}"
    return {
        MARK: str(paths.root),
        "AIIDA_PATH": str(paths.directory("aiida")),
        "SLURM_CONF": str(slurm.conf),
        "TMPDIR": str(paths.run_directory("aiida")),
        "BYOC_CRASH_DIR": str(paths.directory("crash")),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")])),
        "PATH": f"{before}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONWARNINGS": "ignore",
    }


def start(
    paths: LabPaths,
    *,
    postgres: Postgres,
    slurm: Slurm,
    image: Image,
    credentials: Credentials,
    adapter_url: str,
    enrolment: Enrolment | None = None,
    broker: str = BROKER,
    rabbitmq: RabbitMQ | None = None,
    workers: int = WORKERS,
) -> Node:
    """Set the profile up, start daemon and agent, and wait until the agent answers commands.

    Args:
        enrolment: `None`: the adapter was told of the node.
        broker: what carries tasks to the workers, by its entry point.
        rabbitmq: the server, for `core.rabbitmq`.
        workers: how many of AiiDA's workers to start.

    Raises:
        LabError: a command failed or the agent did not start; the message holds what it said.
    """
    env = environment(paths, slurm)
    _make_profile(paths, postgres, env)
    if rabbitmq is not None:
        _point_to(rabbitmq, env)
    policy = paths.root / "policy.toml"
    policy.write_text(owners_policy([tenant.tenant_id for tenant in credentials.tenants], image))
    options = (
        *("--policy", str(policy), "--computer", COMPUTER, "--broker", broker),
        *("--image-store", str(paths.directory("store")), "--job-poll-seconds", "0.5"),
    )
    if enrolment is None:
        identity = ("--node-id", NODE_ID, "--key-file", str(credentials.node_key_file))
        product_keys = paths.root / "product-keys.json"
        product_keys.write_text(json.dumps({"keys": [credentials.signing.public]}))
        keys = ("--product-keys-file", str(product_keys))
        with policy.open("a") as text:
            text.write(UNSIGNED)
        _byoc(env, "init", "--adapter-url", adapter_url, *identity, *keys, *options)
    else:
        _byoc(
            env,
            *("node", "enroll", "--url", adapter_url, *enrolment.options, *options),
            typed=f"{enrolment.token}\n",
        )
    _byoc(env, "images", "add", str(image.layout_dir), image.digest)
    _verdi(
        env,
        *("code", "create", "core.code.installed", "-n", "--label", CODE, "--computer", COMPUTER),
        *("--filepath-executable", "/bin/bash"),
    )
    _verdi(env, "daemon", "start", str(workers))
    agent = spawn_agent(paths, env)
    log = Path(env["AIIDA_PATH"]) / ".aiida" / "daemon" / "log" / f"aiida-{PROFILE}.log"
    return Node(
        node_id=NODE_ID,
        profile=PROFILE,
        broker=broker,
        workers=workers,
        aiida_path=Path(env["AIIDA_PATH"]),
        agent_pid=agent.pid,
        log=agent.log,
        daemon_log=log,
    )


def spawn_agent(paths: LabPaths, env: Mapping[str, str]) -> process.Daemon:
    """Start the agent (again) and wait until its launcher works.

    Raises:
        LabError: it did not start; the message holds the end of its log.
    """
    command = [_program("verdi"), "-p", PROFILE, "data", "byoc", "agent", "run"]
    log = paths.logs / "agent.log"
    before = _launches(log)
    agent = process.spawn(paths, "agent", command, env=env)
    process.wait_until(
        lambda: _launches(log) > before,
        START_SECONDS,
        "the agent's launcher to start",
        needs=[agent],
    )
    return agent


def _launches(log: Path) -> int:
    return log.read_text().count("event=launcher_started") if log.exists() else 0


def stop(paths: LabPaths) -> None:
    """Stop the agent; the daemon and its broker carry the lab's mark and end with the sweep."""
    process.stop(paths, "agent")


def _make_profile(paths: LabPaths, postgres: Postgres, env: Mapping[str, str]) -> None:
    repository = paths.directory("repository")
    _verdi(
        env,
        *("profile", "setup", "core.psql_dos", "-n", "-p", PROFILE, "--set-as-default"),
        *("--email", "lab@localhost", "--first-name", "Lab", "--last-name", "Lab"),
        *("--institution", "Lab", "--broker", "none"),
        *("--database-hostname", postgres.host, "--database-port", str(postgres.port)),
        *("--database-username", postgres.user, "--database-name", postgres.database),
        *("--repository-uri", repository.as_uri()),
        # Not as an option: everybody may read command lines, and AiiDA writes its own down.
        *("--config", "/dev/stdin"),
        typed=json.dumps({"database_password": postgres.password}),
        profile=None,
    )
    work = paths.directory("work")
    _verdi(
        env,
        *("computer", "setup", "-n", "--label", COMPUTER, "--hostname", "localhost"),
        *("--transport", "core.local", "--scheduler", "byoc.slurm", "--work-dir", str(work)),
        *("--mpirun-command", "", "--mpiprocs-per-machine", "1"),
    )
    login = ("--safe-interval", "0", "--no-use-login-shell")
    _verdi(env, "computer", "configure", "core.local", "-n", *login, COMPUTER)
    _verdi(env, "config", "set", "runner.poll.interval", "5")
    # With the default of 2 s a busy machine cannot stop its daemon.
    _verdi(env, "config", "set", "daemon.timeout", "30")


def _point_to(server: RabbitMQ, env: Mapping[str, str]) -> None:
    _verdi(
        env,
        *("profile", "configure-broker", "core.rabbitmq", "-n", "--broker-host", server.host),
        *("--broker-port", str(server.port), "--broker-username", server.user),
        *("--broker-password", server.password, PROFILE),
        profile=None,
    )


def _byoc(env: Mapping[str, str], *arguments: str, typed: str | None = None) -> None:
    _verdi(env, "data", "byoc", *arguments, typed=typed)


def _verdi(
    env: Mapping[str, str],
    *arguments: str,
    profile: str | None = PROFILE,
    typed: str | None = None,
) -> None:
    command: Sequence[str] = [_program("verdi"), *(["-p", profile] if profile else []), *arguments]
    outcome = subprocess.run(
        command,
        env={**os.environ, **env},
        input=typed,
        stdin=subprocess.DEVNULL if typed is None else None,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if outcome.returncode != 0:
        shown = " ".join(arguments[:4])
        raise process.LabError(f"verdi {shown} … failed:\n{outcome.stdout}{outcome.stderr}")


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)
