"""What a node's owner allows of data, and how a refusal or a mistake in the file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.commands.data import Caps, Data, address
from aiida_byoc.commands.placement import Placement
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import POLICY, submit, submit_body

DATA = """
[data]
paths = ["/shared/sets", "/scratch"]
hosts = ["data.example", "*.s3.example", "mirror.example:8443"]
private_hosts = ["store.site:8443"]
max_log_bytes = 10
max_outputs = 3
"""
SHA256 = "0" * 64


def read(tmp_path: Path, text: str = DATA) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + text)
    return Policy.load(path)


def reading(*sources: dict[str, str]) -> dict[str, Any]:
    """A workload with these inputs."""
    inputs = [{"name": f"in-{number}", **source} for number, source in enumerate(sources)]
    return {**submit_body()["workload"], "inputs": inputs}


def url(text: str) -> dict[str, str]:
    return {"url": text, "sha256": SHA256}


def test_what_counts_while_a_job_runs_is_kept_with_it(tmp_path: Path) -> None:
    placed = read(tmp_path).place(submit())

    assert isinstance(placed, Placement)
    assert (placed.data.max_log_bytes, placed.data.max_outputs) == (10, 3)
    assert placed.data.paths == ["/shared/sets", "/scratch"]
    assert placed.data.max_output_bytes == Caps().max_output_bytes
    stored = placed.model_dump(mode="json", exclude_none=True)
    assert Placement.model_validate(stored) == placed
    del stored["data"]
    assert Placement.model_validate(stored).data == Caps()


def test_inputs_within_the_policy_are_placed(tmp_path: Path) -> None:
    sources = [
        {"text": "x"},
        {"job": {"job_id": "a", "output": "b"}},
        {"path": "/shared/sets"},
        {"path": "/shared/sets/a/b.csv"},
        {"path": "/scratch/x"},
        url("https://data.example/a?b=c"),
        url("https://data.example:443/a"),
        url("https://bucket.s3.example/a"),
        url("https://mirror.example:8443/a"),
        url("https://store.site:8443/a"),
    ]

    read(tmp_path).place(submit(workload=reading(*sources)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/shared", "/shared/sets2/x", "/shared/setsx", "/SCRATCH/x"]
)
def test_a_path_elsewhere_is_refused_with_what_is_allowed(tmp_path: Path, path: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(tmp_path).place(submit(workload=reading({"text": ""}, {"path": path})))

    assert caught.value.kind.name == "policy-refused"
    (error,) = caught.value.errors
    assert error.field == "workload.inputs.1.path"
    assert error.remedy == "use a path below: /scratch, /shared/sets"
    assert path not in error.message


@pytest.mark.parametrize(
    "text",
    ["https://other.example/a", "https://data.example:8443/a", "https://sub.data.example/a", "https://s3.example/a",
     "https://xs3.example/a", "https://mirror.example/a", "https://store.site/a", "https://store.site:9443/a",
     "https://data.example.evil.example/a", "https://127.0.0.1/a"],
)  # fmt: skip
def test_a_host_elsewhere_is_refused_with_what_is_allowed(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(tmp_path).place(submit(workload=reading(url(text))))

    (error,) = caught.value.errors
    assert error.field == "workload.inputs.0.url"
    assert error.remedy == (
        "use a host among: *.s3.example, data.example, mirror.example:8443, store.site:8443"
    )
    assert text not in str(caught.value.problem())


def test_without_a_word_nothing_is_allowed(tmp_path: Path) -> None:
    sources = [{"path": "/shared/sets/a"}, url("https://data.example/a")]

    with pytest.raises(ProblemError) as caught:
        read(tmp_path, "").place(submit(workload=reading(*sources)))

    assert [error.field for error in caught.value.errors] == [
        "workload.inputs.0.path",
        "workload.inputs.1.url",
    ]
    assert caught.value.errors[0].remedy == "ask the node's owner; there is none yet"


def test_faults_of_inputs_are_told_with_all_others(tmp_path: Path) -> None:
    workload = reading({"path": "/etc/passwd"})

    with pytest.raises(ProblemError) as caught:
        read(tmp_path).place(submit(workload=workload, execution_profile={"queue_name": "x"}))

    assert [error.field for error in caught.value.errors] == [
        "execution_profile.queue_name",
        "workload.inputs.0.path",
    ]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('paths = ["shared"]', "data.paths.0"),
        ('paths = ["/shared/"]', "data.paths.0"),
        ('paths = ["/"]', "data.paths.0"),
        ('paths = ["/shared/../etc"]', "data.paths.0"),
        ('hosts = ["https://data.example"]', "data.hosts.0"),
        ('hosts = ["*"]', "data.hosts.0"),
        ('hosts = ["a.*.example"]', "data.hosts.0"),
        ('hosts = ["Data.example"]', "data.hosts.0"),
        ('private_hosts = ["store.site"]', "data.private_hosts.0"),
        ('private_hosts = ["*.site:8443"]', "data.private_hosts.0"),
        ('ca_file = "site.pem"', "data.ca_file"),
        ("max_outputs = 10001", "data.max_outputs"),
        ("max_log_bytes = -1", "data.max_log_bytes"),
        ("max_log_bytes = 1.5", "data.max_log_bytes"),
        ("keep_fetched_days = 0", "data.keep_fetched_days"),
        ("surprise = 1", "data.surprise"),
    ],
)
def test_a_mistake_in_the_file_is_told_by_its_place(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(PolicyError, match=rf"is wrong at {place}: "):
        read(tmp_path, f"\n[data]\n{line}\n")


@pytest.mark.parametrize(
    ("host", "port", "answer"),
    [
        ("data.example", 443, "public"),
        ("a.b.s3.example", 443, "public"),
        ("store.site", 8443, "private"),
        ("store.site", 443, None),
        ("", 443, None),
    ],
)
def test_which_addresses_of_a_host_may_be_asked(host: str, port: int, answer: str | None) -> None:
    data = Data(hosts=["data.example", "*.s3.example"], private_hosts=["store.site:8443"])

    assert data.admits(host, port) == answer


def test_the_address_of_a_url() -> None:
    assert address("https://a.example/b") == ("a.example", 443)
    assert address("https://a.example:8443?b") == ("a.example", 8443)
