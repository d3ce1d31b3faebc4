"""A receipt, a command and files as an RO-Crate: by the rules of the profile, whatever the job was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.contracts.receipt import Statement
from aiida_byoc.contracts.validation import validated
from aiida_byoc.receipts.crate import metadata
from tests.builders import submit_body
from tests.contracts.messages import changed, golden
from tests.crates import broken, entities

OF_A_RUN = {
    "receipt.json": b"{}",
    "command.json": b"{}",
    "attempts/1/script.sh": b"#!/bin/bash\n",
    "attempts/2/script.sh": b"#!/bin/bash\n",
    "attempts/2/stdout": b"out",
    "outputs/results/sorted.txt": b"1\n2\n3\n",
    "inputs/numbers.txt": b"3\n1\n2\n",
    "inputs/table.csv": b"table",
}
OF_NO_RUN = {"receipt.json": b"{}"}


def pack(
    place: Path, statement: str = "succeeded", files: dict[str, bytes] = OF_A_RUN, **changes: Any
) -> Path:
    """A crate on disk of a golden statement; changes are members of the run."""
    told = golden(f"receipt-statement.{statement}")
    for path, value in changes.items():
        told = changed(told, f"predicate.{path}", value)
    facts = {}
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        facts[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    command = submit_body() if "command.json" in files else {}
    document = metadata(validated(Statement, told), command, facts)
    (place / "ro-crate-metadata.json").write_text(json.dumps(document))
    return place


@pytest.mark.parametrize(
    ("statement", "files"),
    [("succeeded", OF_A_RUN), ("failed", OF_NO_RUN), ("cancelled", OF_NO_RUN)],
)
def test_a_crate_keeps_the_rules(statement, files, tmp_path):
    assert list(broken(pack(tmp_path, statement, files))) == []


def test_each_attempt_is_an_action_of_the_program_in_its_image(tmp_path):
    described = entities(pack(tmp_path))

    first, second = described["#attempt-1"], described["#attempt-2"]
    assert first["error"].startswith("The job ran out of memory")
    assert first["actionStatus"].endswith("FailedActionStatus")
    assert second["actionStatus"].endswith("CompletedActionStatus")
    assert (second["startTime"], second["endTime"]) == (
        "2026-03-01T12:01:05+00:00",
        "2026-03-01T12:01:12+00:00",
    )
    assert {"@id": "outputs/results/sorted.txt"} in second["result"]
    assert "outputs/results/sorted.txt" not in json.dumps(first)
    assert described["#program"]["description"] == "echo hello"
    assert described["#requester"]["name"] == "user-1"
    image = described["#image"]
    assert (image["registry"], image["name"], image["tag"]) == (
        "registry.example",
        "lab/sort",
        "1.4",
    )


def test_inputs_that_are_elsewhere_are_told_where_they_are(tmp_path):
    """A file of the web is a part of the crate by its URL; a path of the cluster is nobody's elsewhere."""
    described = entities(pack(tmp_path))

    assert described["https://data.example/set/1.csv"]["@type"] == "File"
    path = described["#input/potentials"]
    assert (path["@type"], path["value"]) == ("PropertyValue", "/shared/potentials")
    given = [each["@id"] for each in described["#attempt-2"]["object"]]
    assert sorted(given) == sorted(
        ["inputs/numbers.txt", "inputs/table.csv", "https://data.example/set/1.csv", path["@id"]]
    )


def test_an_output_that_stayed_on_the_cluster_is_told_by_its_hash(tmp_path):
    files = {name: content for name, content in OF_A_RUN.items() if "outputs" not in name}

    crate = pack(tmp_path, files=files)

    output = entities(crate)["#output/results/sorted.txt"]
    assert output["sha256"] == hashlib.sha256(b"1\n2\n3\n").hexdigest()
    assert list(broken(crate)) == []


def test_names_that_are_no_uris_are_written_as_such(tmp_path):
    crate = pack(tmp_path, files={**OF_A_RUN, "outputs/größe 100%.txt": b"x"})

    assert "outputs/gr%C3%B6%C3%9Fe%20100%25.txt" in entities(crate)
    assert list(broken(crate)) == []


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("localhost/byoc/demo:1", ("localhost", "byoc/demo", "1")),
        ("registry.example:5000/lab/sort:1.4", ("registry.example:5000", "lab/sort", "1.4")),
        (f"registry.example/lab/sort@sha256:{'a' * 64}", ("registry.example", "lab/sort", None)),
        ("debian:12", ("docker.io", "debian", "12")),
        ("lab/sort:1", ("docker.io", "lab/sort", "1")),
    ],
)
def test_an_image_is_told_as_registries_know_it(reference, expected, tmp_path):
    digest = f"sha256:{'b' * 64}"
    image = entities(pack(tmp_path, image={"reference": reference, "digest": digest}))["#image"]

    assert (image["registry"], image["name"], image.get("tag")) == expected
    assert image["sha256"] == "b" * 64


@pytest.mark.parametrize(
    ("entity", "member"),
    [("./", "license"), ("#program", "url"), ("#attempt-2", "instrument"), ("#attempt-1", "error"),
     ("inputs/numbers.txt", "contentSize")],
)  # fmt: skip
def test_the_rules_are_seen_to_fail(entity, member, tmp_path):
    crate = pack(tmp_path)
    file = crate / "ro-crate-metadata.json"
    document = json.loads(file.read_text())
    (found,) = [each for each in document["@graph"] if each["@id"] == entity]
    if member == "instrument":
        found[member] = {"@id": "./"}
    else:
        del found[member]
    file.write_text(json.dumps(document))

    assert list(broken(crate))
