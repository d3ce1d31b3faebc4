"""An image that the node lacks, from a registry to the projection of the job that asked for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import registry
from lab.paths import LabPaths
from tests.unit.node.oci import OCI, blob, file, layer, name

REPOSITORY = "lab/greeting"
TAG = "1.4"


@pytest.fixture
def approved(lab: dict[str, Any], lab_paths: LabPaths) -> Iterator[tuple[str, str]]:
    """A repository at a registry, and the digest of its image: the lab's own, with a file more."""
    server = registry.start(lab_paths)
    place = lab_paths.directory("greeting")
    digest = _with_a_greeting(lab_paths.directory("images") / "demo", place)
    registry.push(server, place, REPOSITORY, TAG, digest=digest)
    policy = lab_paths.root / "policy.toml"
    before = policy.read_text()
    repository = f"{server.host}/{REPOSITORY}"
    policy.write_text(
        f'{before}\n[images."{repository}"]\ndigests = ["{digest}"]\npull = true\n'
        f'tags = {{ "{TAG}" = "{digest}" }}\n'
    )
    yield repository, digest
    policy.write_text(before)
    registry.stop(lab_paths)


def _with_a_greeting(source: Path, place: Path) -> str:
    shutil.copytree(source / "blobs", place / "blobs")
    entry = json.loads((source / "index.json").read_text())["manifests"][0]
    manifest = json.loads((source / "blobs/sha256" / entry["digest"][7:]).read_text())
    manifest["layers"].append(blob(place, layer(file("greeting", "hello"), compress=True)))
    return name(place, json.dumps(manifest).encode(), OCI.manifest)


def test_an_approved_image_is_pulled_and_its_digest_is_told_from_first_to_last(
    acme: Any, approved: tuple[str, str]
) -> None:
    """By tag: what that stood for at acceptance is in every update, and is what the job says it ran."""
    repository, digest = approved
    reference = f"{repository}:{TAG}"
    workload = {"image": reference, "outputs": [{"name": "out"}]}
    command = acme.command("sh", "-c", "cat /greeting > out", workload=workload)

    acme.submit(command)
    projection = acme.wait(command["job_id"])

    assert projection["state"] == "succeeded", projection
    assert projection["result"]["outputs"][0]["size"] == len("hello")
    assert projection["image"] == {"reference": reference, "digest": digest}
    assert projection["result"]["image_digest"] == digest
    timeline = acme.query(
        "jobs:timeline",
        job_id=command["job_id"],
        paginationOpts={"numItems": 100, "cursor": None},
    )["page"]
    assert {entry["image"]["digest"] for entry in timeline} == {digest}
