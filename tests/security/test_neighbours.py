"""Two tenants on one node, end to end: neither sees, stops, reads, chains from or guesses the other's jobs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from lab import convex
from lab.process import wait_until
from tests.labs import Client
from tests.security.inventory import GUARDED

SECRET = "acme-knows-this"


@dataclass
class Victim:
    """A job of acme that runs until the tests are over, and one that has ended; `ids` are all their names."""

    running: dict[str, Any]
    ended: dict[str, Any]
    key: str
    ids: list[str]


@pytest.fixture(scope="module")
def victim(acme: Client, globex: Client) -> Iterator[Victim]:
    script = f"echo {SECRET}; echo {SECRET} > kept"
    workload = {"outputs": [{"name": "kept"}]}
    ended = acme.command("sh", "-c", script, workload=workload)
    running = acme.command("sh", "-c", f"{script}; sleep 600", workload=workload)
    key = str(uuid.uuid4())
    answers = [acme.submit(running, key), acme.submit(ended)]
    assert [answer.status_code for answer in answers] == [202, 202]
    names = ("job_id", "submission_id", "trace_id")
    ids = [answer.json()[name] for answer in answers for name in names]
    assert acme.wait(ended["job_id"])["state"] == "succeeded"
    wait_until(
        lambda: SECRET in acme.http.get(f"{acme.jobs}/{running['job_id']}/logs").text,
        60,
        "the job to write",
    )
    yield Victim(running, ended, key, ids)
    acme.cancel(running["job_id"])
    acme.wait(running["job_id"], "cancelled")


def told(response: httpx.Response, *names: str) -> tuple[int, str]:
    """Status and body without the names that the caller chose."""
    body = response.text
    for name in names:
        body = body.replace(name, "NAME")
    return response.status_code, body


READS = {
    str(route): route for route in GUARDED if route.method == "GET" and "{job_id}" in route.path
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "as text": {"headers": {"Accept": "text/plain"}},
    "errors": {"params": {"stream": "stderr"}},
    "attempt": {"params": {"attempt": "1"}},
    "followed": {"params": {"follow": "true"}},
}
"""Ways to ask; a route that does not know a parameter takes no notice."""


@pytest.mark.parametrize("how", VARIANTS)
@pytest.mark.parametrize("read", READS)
def test_nothing_of_anothers_job_is_read(
    read: str, how: str, victim: Victim, acme: Client, globex: Client
) -> None:
    """By every route, whatever the name, while it runs and after it: what there is not, word for word."""

    def ask(client: Client, job_id: str) -> httpx.Response:
        url = READS[read].url(client.lab["node"]["node_id"], job_id=job_id)
        return client.http.get(url, **VARIANTS[how])

    unknown = ask(globex, "no-such-job")

    assert unknown.status_code == 404
    assert ask(acme, victim.ended["job_id"]).status_code == 200
    for name in victim.ids:
        assert told(ask(globex, name)) == told(unknown)


def test_anothers_job_is_not_stopped(victim: Victim, acme: Client, globex: Client) -> None:
    """The cancel is one of globex's own job of that name, which may yet come, as for any name."""
    job, name = victim.running["job_id"], f"job-{uuid.uuid4().hex[:12]}"

    guess, unknown = globex.cancel(job), globex.cancel(name)

    times = [response.json().pop("requested_at") for response in (guess, unknown)]
    assert told(guess, job, times[0]) == told(unknown, name, times[1])
    assert acme.projection(job)["state"] in {"accepted", "queued", "running"}
    assert acme.http.get(f"{acme.jobs}/{job}").json()["job"]["tenant_id"] == "acme"


@pytest.mark.parametrize("output", ["kept", "no-such-output"])
def test_nothing_is_chained_from_anothers_job(output: str, victim: Victim, globex: Client) -> None:
    """An input from it is one from a job that there is not."""
    answers = []
    for job in (victim.running["job_id"], victim.ended["job_id"], "no-such-job"):
        inputs = [{"name": "x", "job": {"job_id": job, "output": output}}]
        command = globex.command("cat", "x", workload={"inputs": inputs})
        answers.append(told(globex.submit(command), job, command["job_id"]))

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 422


def test_a_name_or_a_key_of_anothers_opens_nothing(
    victim: Victim, acme: Client, globex: Client
) -> None:
    """Globex uses acme's job id and acme's key: it gets a job of its own, and acme's stays as it is."""
    job = victim.ended["job_id"]
    command = globex.command("sh", "-c", "ls -A; exit 3") | {"job_id": job}

    response = globex.submit(command, victim.key)

    assert response.status_code == 202
    assert "Idempotency-Replayed" not in response.headers
    assert globex.wait(job)["state"] == "failed"
    assert acme.projection(job)["state"] == "succeeded"
    ours, theirs = (each.http.get(f"{each.jobs}/{job}/logs").json() for each in (globex, acme))
    assert SECRET not in ours["data"]
    assert SECRET in theirs["data"]


def test_the_product_shows_a_tenant_its_own(victim: Victim, globex: Client) -> None:
    """By its queries, and by those of the other tenant's name with its own token."""
    jobs = {victim.running["job_id"], victim.ended["job_id"]}
    page = {"paginationOpts": {"numItems": 100, "cursor": None}}
    names = [job for job in jobs if globex.projection(job)]

    assert names == [] or globex.projection(names[0])["tenant_id"] == "globex"
    assert SECRET not in str(globex.query("jobs:list", **page))
    for function, arguments in (
        ("jobs:list", page),
        ("jobs:get", {"job_id": victim.ended["job_id"]}),
        ("jobs:timeline", {"job_id": victim.ended["job_id"], **page}),
        ("nodes:list", {}),
    ):
        where = globex.lab["convex"]
        product = convex.Convex(
            url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"]
        )
        heard = []
        for tenant in ("acme", "no-such-tenant"):
            with pytest.raises(RuntimeError) as refused:
                convex.call(
                    product,
                    "query",
                    function,
                    {"tenant_id": tenant, **arguments},
                    authorization=f"Bearer {globex.tenant['token']}",
                )
            heard.append(str(refused.value).replace(tenant, "NAME"))
        assert _without_request_id(heard[0]) == _without_request_id(heard[1])


def _without_request_id(text: str) -> str:
    return re.sub(r"Request ID: \w+", "", text)


def test_a_container_sees_nothing_of_anothers(
    victim: Victim, acme: Client, globex: Client, database: Any
) -> None:
    """Neither its directory, which globex even names, nor its processes."""
    row = database.execute(
        "SELECT attributes ->> 'remote_workdir' FROM db_dbnode WHERE attributes ->> 'remote_workdir' IS NOT NULL"
        " ORDER BY id LIMIT 1"
    ).fetchone()
    assert row is not None
    script = f"ls {row[0]} && exit 4; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; exit 0"
    command = globex.command("sh", "-c", script)
    globex.submit(command)

    assert globex.wait(command["job_id"])["state"] == "succeeded"
    log = globex.http.get(f"{globex.jobs}/{command['job_id']}/logs").json()["data"]
    assert "sleep 600" not in log
