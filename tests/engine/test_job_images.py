"""What becomes of a job whose image is not there, damaged, or another one than was accepted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.commands.launcher import Launcher
from aiida_byoc.runtimes.images import ImageStore
from lab import image
from tests.engine.driving import Underway
from tests.unit.node.oci import file, layer, layout

UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path, built: image.Image) -> ImageStore:
    """A store of the test's own, with the demonstration image, unpacked."""
    store = ImageStore(tmp_path / "store")
    store.add(built.layout_dir, built.digest)
    store.rootfs(built.digest)
    return store


@pytest.fixture
def own_node(node: Any, store: ImageStore) -> Any:
    """The node on that store."""
    settings = node.settings.model_copy(update={"image_store": store.directory})
    launcher = Launcher(node.runner, settings, node.dispatched.append)
    return replace(node, settings=settings, launcher=launcher)


def error(node: Any, submission: str) -> dict[str, Any]:
    last = node.events(submission)[-1]
    assert last["state"] == "failed"
    return last["error"]  # type: ignore[no-any-return]


def test_an_image_that_is_not_in_the_store_is_missing(own_node: Any) -> None:
    """Slurm is not even asked."""
    submission = own_node.accept(placement=UNKNOWN)

    chain = own_node.run(submission)

    assert chain.exit_status == 500
    assert error(own_node, submission)["code"] == "image_missing"
    assert UNKNOWN in error(own_node, submission)["message"]
    assert "scheduler" not in own_node.events(submission)[-1]


@pytest.mark.parametrize("how", ["altered", "no archive"])
def test_an_image_that_cannot_be_unpacked_is_damaged(
    own_node: Any, store: ImageStore, tmp_path: Path, how: str
) -> None:
    """By its blobs or by what is in them; the store's other images are none the worse."""
    content = layer(file("a")) if how == "altered" else b"no archive at all" * 99
    digest = layout(tmp_path / "source", [content])
    store.add(tmp_path / "source", digest)
    if how == "altered":
        name = store.image(digest).layers[0].digest.removeprefix("sha256:")
        (store.layout(digest) / "blobs" / "sha256" / name).write_bytes(content + b"x")
    submission = own_node.accept(placement=digest)

    chain = own_node.run(submission)

    assert chain.exit_status == 502
    assert error(own_node, submission)["code"] == "image_damaged"
    assert "scheduler" not in own_node.events(submission)[-1]
    assert own_node.run(own_node.accept()).is_finished_ok


def test_a_store_that_cannot_be_used_is_not_the_images_fault(
    own_node: Any, store: ImageStore
) -> None:
    """And its place is nobody else's business."""
    shutil.rmtree(store.unpacked(own_node.digest))
    shutil.rmtree(store.directory / "locks")
    (store.directory / "locks").write_text("a file")
    submission = own_node.accept()

    chain = own_node.run(submission)

    assert chain.exit_status == 503
    assert error(own_node, submission)["code"] == "image_unavailable"
    assert str(store.directory) not in error(own_node, submission)["message"]


def test_another_image_in_its_place_is_not_run(own_node: Any, store: ImageStore) -> None:
    """The job finds it out on the compute node, by what lies there."""
    place = store.unpacked(own_node.digest) / "manifest"
    place.write_bytes(place.read_bytes() + b" ")
    submission = own_node.accept("sh", "-c", "echo ran")

    chain = own_node.run(submission)

    assert chain.exit_status == 322
    assert error(own_node, submission)["code"] == "image_mismatch"
    assert own_node.digest in error(own_node, submission)["message"]
    last = own_node.events(submission)[-1]
    assert last["image"]["digest"] == own_node.digest
    assert "result" not in last
    assert last["scheduler"]["job_id"]
    (attempt,) = chain.called
    assert attempt.outputs.retrieved.base.repository.get_object_content("stdout") == ""


def test_a_compute_node_without_the_store_says_so(
    own_node: Any, store: ImageStore, scontrol: Callable[..., str]
) -> None:
    """As where the directory is not shared: the node itself has the image."""
    nodes = scontrol("--oneliner", "show", "nodes").split("NodeName=")[1:]
    names = ",".join(each.split()[0] for each in nodes)
    scontrol("update", f"nodename={names}", "state=drain", "reason=test")
    try:
        job = Underway(own_node, own_node.accept())
        job.until_state("queued")
        store.directory.rename(store.directory.with_name("elsewhere"))
    finally:
        scontrol("update", f"nodename={names}", "state=resume")

    chain = job.finish()

    assert chain.exit_status == 323
    assert error(own_node, job.submission)["code"] == "image_missing"
