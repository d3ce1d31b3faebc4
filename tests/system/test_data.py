"""Data from one job to the next, from shared places and from the network, as strangers ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.paths import LabPaths
from tests.https_store import Answer, Store, https_store

FETCHED = b"fetched\n"
SHARED = b"shared\n"


@dataclass
class Site:
    """What the node's owner lets jobs read."""

    shared: Path
    store: Store

    @property
    def url(self) -> dict[str, str]:
        return {"url": self.store.url(), "sha256": hashlib.sha256(FETCHED).hexdigest()}


@pytest.fixture(scope="module")
def site(
    lab: dict[str, Any], lab_paths: LabPaths, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A shared directory and a store of the site, both in the node's policy."""
    place: Path = tmp_path_factory.mktemp("site")
    shared = place / "shared"
    (shared / "set").mkdir(parents=True)
    (shared / "set" / "x").write_bytes(SHARED)
    policy = lab_paths.root / "policy.toml"
    before = policy.read_text()
    with https_store(place) as store:
        store.answers["/file"] = Answer(FETCHED)
        policy.write_text(
            f'{before}\n[data]\npaths = ["{shared}"]\nprivate_hosts = ["localhost:{store.port}"]\n'
            f'ca_file = "{store.ca_file}"\n'
        )
        yield Site(shared, store)
    policy.write_text(before)


def test_a_chain_of_jobs_reads_what_it_was_given(acme: Any, site: Site) -> None:
    """The second is accepted while the first has not begun; nobody passes data through the product."""
    first = acme.command(
        *("sh", "-c", "mkdir parts; for n in 1 2 3; do echo $n > parts/$n.txt; done"),
        workload={"outputs": [{"glob": "parts/*.txt"}]},
    )
    inputs = [
        {"name": "made", "job": {"job_id": first["job_id"], "output": "parts/2.txt"}},
        {"name": "set", "path": str(site.shared / "set")},
        {"name": "fetched", **site.url},
        {"name": "script", "text": "cat made set/x fetched > all"},
    ]
    second = acme.command("sh", "script", workload={"inputs": inputs, "outputs": [{"name": "all"}]})

    assert acme.submit(first).status_code == 202
    assert acme.submit(second).status_code == 202

    projection = acme.wait(second["job_id"])
    assert projection["state"] == "succeeded", projection
    (output,) = projection["result"]["outputs"]
    expected = b"2\n" + SHARED + FETCHED
    assert output == {
        "name": "all",
        "size": len(expected),
        "sha256": hashlib.sha256(expected).hexdigest(),
        "location": "repository",
    }
    assert [path for path, _ in site.store.asked] == ["/file"]
    earlier = acme.projection(first["job_id"])
    assert [each["name"] for each in earlier["result"]["outputs"]] == [
        f"parts/{number}.txt" for number in (1, 2, 3)
    ]


def test_a_job_ends_with_its_inputs(acme: Any, site: Site) -> None:
    """One whose earlier job fails, and one whose file is not there, each with its reason."""
    first = acme.command("sh", "-c", "exit 3", workload={"outputs": [{"name": "o"}]})
    source = {"job": {"job_id": first["job_id"], "output": "o"}}
    after = acme.command("true", workload={"inputs": [{"name": "in", **source}]})
    nowhere = {"url": site.store.url("/nowhere"), "sha256": "0" * 64}
    lost = acme.command("true", workload={"inputs": [{"name": "in", **nowhere}]})
    for command in (first, after, lost):
        assert acme.submit(command).status_code == 202

    reasons = {job["job_id"]: acme.wait(job["job_id"])["error"] for job in (after, lost)}

    assert {each["code"] for each in reasons.values()} == {"input_unavailable"}
    assert (
        f"the job {first['job_id']}, whose output it reads, ended as failed"
        in (reasons[after["job_id"]]["message"])
    )
    assert "HTTP 404" in reasons[lost["job_id"]]["message"]


@pytest.mark.parametrize(
    ("source", "problem", "field"),
    [
        ({"path": "/etc/passwd"}, "policy-refused", "path"),
        ({"url": "https://169.254.169.254/", "sha256": "0" * 64}, "policy-refused", "url"),
        ({"job": {"job_id": "nobody", "output": "o"}}, "input-not-found", "job.job_id"),
    ],
)
@pytest.mark.usefixtures("site")
def test_what_may_not_be_read_is_refused_by_field(
    acme: Any, rows: Any, source: dict[str, Any], problem: str, field: str
) -> None:
    """Nothing is stored."""
    before = rows()

    response = acme.submit(acme.command("true", workload={"inputs": [{"name": "in", **source}]}))

    assert response.status_code == 422
    assert response.json()["type"].endswith(f"/{problem}")
    (error,) = response.json()["errors"]
    assert error["field"] == f"workload.inputs.0.{field}"
    assert error["remedy"]
    assert rows() == before


def test_i23_an_output_is_its_workspaces_alone(acme: Any, globex: Any) -> None:
    """Another tenant cannot tell it from one that is not there."""
    first = acme.command("sh", "-c", "echo x > o", workload={"outputs": [{"name": "o"}]})
    assert acme.submit(first).status_code == 202

    answers = [
        globex.submit(
            globex.command("true", workload={"inputs": [{"name": "in", "job": {"job_id": job, "output": "o"}}]})
        ).json()
        for job in (first["job_id"], "nobody")
    ]  # fmt: skip

    assert answers[0] == answers[1]
    assert answers[0]["type"].endswith("/input-not-found")
