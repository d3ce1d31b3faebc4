"""A second node joins the running product by a token, on a profile of its own; the adapter is set up as before."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql

from aiida_byoc.contracts.signature import SIGNATURE_HEADER, signing_input
from lab import convex, image, node, process
from lab.paths import LabPaths
from tests.labs import SIGNED_TOKEN

NODE_ID = "second-node"
PROFILE = "second"
AGENT = "second-agent"
SECONDS = 120.0


@dataclass
class Second:
    """The node, and the product and clients that know it."""

    lab: dict[str, Any]
    paths: LabPaths
    acme: Any
    policy: Path
    connection: psycopg.Connection
    signing: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.signing = json.loads(Path(self.lab["product"]["signing_key_file"]).read_text())

    @property
    def log(self) -> Path:
        return self.paths.logs / f"{AGENT}.log"

    def verdi(self, *words: str, told: str | None = None, profile: str | None = PROFILE) -> str:
        """Run a command on the node's profile; its output, once it succeeded."""
        named = ("-p", profile) if profile else ()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "verdi"), *named, *words],
            env={**os.environ, **self.lab["node"]["environment"]},
            input=told,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{words[:4]}: {done.stdout}{done.stderr}"
        return done.stdout

    def byoc(self, *words: str, told: str | None = None) -> str:
        return self.verdi("data", "byoc", *words, told=told)

    def product(self, kind: str, function: str, **arguments: Any) -> Any:
        """Call the product as the owner of the tenant."""
        where = self.lab["convex"]
        return convex.call(
            convex.Convex(
                url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"]
            ),
            kind,
            function,
            {"tenant_id": self.acme.tenant["tenant_id"], "node_id": NODE_ID, **arguments},
            authorization=f"Bearer {self.acme.tenant['token']}",
        )

    def enroll(self, token: str) -> str:
        return self.byoc(
            *("node", "enroll", "--url", self.lab["adapter"]["url"], "--computer", node.COMPUTER),
            *("--policy", str(self.policy), "--image-store", str(self.paths.directory("second"))),
            told=f"{token}\n",
        )

    def start_agent(self) -> None:
        command = [str(Path(sys.executable).parent / "verdi"), "-p", PROFILE]
        process.spawn(
            self.paths,
            AGENT,
            [*command, "data", "byoc", "agent", "run"],
            env=self.lab["node"]["environment"],
        )
        self.until(lambda: "event=launcher_started" in self.log.read_text(), "the launcher")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return process.wait_until(condition, SECONDS, what, logs=[self.log])

    def command(self, *argv: str) -> dict[str, Any]:
        return self.acme.command(*argv, management_node_id=NODE_ID)

    def submit(
        self,
        command: dict[str, Any],
        *,
        tampered: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Submit what the product signed, under a new key by default; `tampered` is what is sent instead."""
        key = key or str(uuid.uuid4())
        header = json.dumps({"alg": "ES256", "kid": self.signing["kid"]}).encode()
        protected = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
        made = jwt.get_algorithm_by_name("ES256").sign(
            signing_input(protected, "submit", key, command), jwt.PyJWK(self.signing).key
        )
        signature = base64.urlsafe_b64encode(made).rstrip(b"=").decode()
        return self.post(
            tampered or command, key, **{SIGNATURE_HEADER: f"{protected}..{signature}"}
        )

    def post(self, command: dict[str, Any], key: str, **headers: str) -> httpx.Response:
        return self.acme.http.post(
            f"/v1/nodes/{NODE_ID}/jobs",
            json=command,
            headers={"Idempotency-Key": f'"{key}"', **headers},
        )

    def state(self, job_id: str) -> str | None:
        """What the node's own ledger says."""
        row = self.connection.execute(
            "SELECT state::text FROM byoc.job WHERE job_id = %s", (job_id,)
        ).fetchone()
        return row[0] if row else None

    def runs(self, *argv: str) -> None:
        """A signed job is accepted, runs and is shown."""
        command = self.command(*argv)
        answer = self.submit(command)
        assert answer.status_code == 202, answer.text
        assert self.acme.wait(command["job_id"])["state"] == "succeeded"


@pytest.fixture(scope="module")
def second(lab: dict[str, Any], lab_paths: LabPaths, acme: Any) -> Iterator[Second]:
    """A profile on the lab's PostgreSQL and Slurm, not a node yet."""
    dsn = psycopg.conninfo.conninfo_to_dict(lab["postgres"]["dsn"])
    superuser = psycopg.conninfo.make_conninfo(
        host=str(lab_paths.service_run("pg")), port=dsn["port"], user="postgres", dbname="postgres"
    )
    with psycopg.connect(superuser, autocommit=True) as admin:
        owned = sql.SQL("CREATE DATABASE second OWNER {}")
        admin.execute(owned.format(sql.Identifier(str(dsn["user"]))))
    policy = lab_paths.root / "second.toml"
    built = image.build(lab_paths)
    repository, _, tag = built.ref.rpartition(":")
    tenant = acme.tenant["tenant_id"]
    policy.write_text(
        f'tenants = ["{tenant}"]\n[ceilings]\ncpu = 2\nmemory_mib = 1024\nwalltime_seconds = 600\n'
        f'[queues.{node.QUEUE}]\npartition = "main"\n'
        f'[images."{repository}"]\ndigests = ["{built.digest}"]\ntags = {{ "{tag}" = "{built.digest}" }}\n'
    )
    made = Second(lab, lab_paths, acme, policy, None)  # type: ignore[arg-type]
    repository_path = lab_paths.directory("second-repository")
    made.verdi(
        *("profile", "setup", "core.psql_dos", "-n", "--profile-name", PROFILE),
        *("--email", "second@localhost", "--first-name", "S", "--last-name", "N"),
        *("--institution", "Lab", "--broker", "none", "--database-name", "second"),
        *("--database-hostname", str(dsn["host"]), "--database-port", str(dsn["port"])),
        *(
            "--database-username",
            str(dsn["user"]),
            "--database-password",
            str(dsn.get("password", "")),
        ),
        *("--repository-uri", repository_path.as_uri()),
        profile=None,
    )
    made.verdi(
        *("computer", "setup", "-n", "--label", node.COMPUTER, "--hostname", "localhost"),
        *("--transport", "core.local", "--scheduler", "byoc.slurm"),
        *("--work-dir", str(lab_paths.directory("second-work"))),
        *("--mpirun-command", "", "--mpiprocs-per-machine", "1"),
    )
    login = ("--safe-interval", "0", "--no-use-login-shell")
    made.verdi("computer", "configure", "core.local", "-n", *login, node.COMPUTER)
    with psycopg.connect(
        psycopg.conninfo.make_conninfo(lab["postgres"]["dsn"], dbname="second"), autocommit=True
    ) as connection:
        made.connection = connection
        yield made
        process.stop(lab_paths, AGENT)
        made.verdi("daemon", "stop")


def test_a_node_joins_works_changes_its_key_drains_and_is_revoked(second: Second) -> None:
    """From the owner's click to a job's result, and back: each step by the command or function that an owner uses."""
    created = second.product("action", "nodes:create")
    token = created["enrolment_token"]

    said = second.enroll(token)
    assert "is the management node second-node" in said
    assert token not in said
    second.byoc(
        "images",
        "add",
        str(image.build(second.paths).layout_dir),
        second.lab["images"][0]["digest"],
    )
    second.verdi("daemon", "start", "1")
    second.start_agent()
    second.runs("true")

    # What the product did not sign, or somebody changed on the way, is not accepted.
    command = second.command("true")
    bare = second.post(command, str(uuid.uuid4()))
    changed = second.submit(command, tampered=second.command("rm", "-rf", "/"))
    assert [answer.json()["type"].rpartition("/")[2] for answer in (bare, changed)] == [
        "signature-invalid"
    ] * 2
    assert second.state(command["job_id"]) is None

    # Another key, while the agent runs; jobs go on.
    before = json.loads(second.byoc("node", "show", "--json"))["key_id"]
    second.byoc("node", "rotate-key")
    after = json.loads(second.byoc("node", "show", "--json"))["key_id"]
    assert before != after
    second.runs("true")

    # Drained, it takes nothing new, and says so to the product.
    second.byoc("node", "drain")
    refused = second.submit(second.command("true"))
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (
        503,
        "node-draining",
    )
    second.byoc("node", "resume")
    second.runs("true")

    # Revoked, it says so, and its job runs to the end; enrolled again, all is told.
    # It is longer than a revocation takes to count.
    long = second.command("sh", "-c", "sleep 70")
    assert second.submit(long).status_code == 202
    second.until(lambda: second.state(long["job_id"]) == "running", "the job to run")
    second.product("mutation", "nodes:revoke")
    second.until(lambda: "event=node_refused" in second.log.read_text(), "the node to notice")
    second.until(lambda: second.state(long["job_id"]) == "succeeded", "the job to end")
    assert second.acme.projection(long["job_id"])["state"] == "running"
    renewed = second.product("action", "nodes:renewToken")
    second.enroll(renewed["enrolment_token"])
    assert second.acme.wait(long["job_id"])["state"] == "succeeded"
    # Its channel asks by itself whether it may again; until then the product repeats its key.
    last, key = second.command("true"), str(uuid.uuid4())
    second.until(lambda: second.submit(last, key=key).status_code == 202, "the channel")
    assert second.acme.wait(last["job_id"])["state"] == "succeeded"

    # Of all that opened something on the way no log knows.
    secrets = [each["enrolment_token"].split(".")[2] for each in (created, renewed)]
    for log in [file for file in second.paths.logs.rglob("*") if file.is_file()]:
        text = log.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), log
        assert not SIGNED_TOKEN.search(text), log


def test_the_product_sees_what_the_node_has(second: Second) -> None:
    """Partitions of the policy's queues, free slots, the clock, and nothing that does not work."""
    since = datetime.now(UTC)  # an earlier heartbeat may tell of the revocation

    def reported() -> Any:
        nodes = second.acme.query("nodes:list")
        (mine,) = [each for each in nodes if each["node_id"] == NODE_ID]
        if "heartbeat" not in mine:
            return None
        heartbeat = mine["heartbeat"]
        beat = heartbeat["report"]
        told = beat.get("partitions") and "clock_skew_seconds" in beat
        return beat if told and datetime.fromisoformat(heartbeat["received_at"]) > since else None

    beat = second.until(reported, "a heartbeat with all of it")

    (partition,) = beat["partitions"]
    assert (partition["name"], partition["up"], partition["nodes"]) == ("main", True, 2)
    assert partition["gpus"] == 4
    assert beat["slots_free"] > 0
    assert abs(beat["clock_skew_seconds"]) < 5
    assert beat["trouble"] == []
