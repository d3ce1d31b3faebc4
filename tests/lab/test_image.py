"""The image is reproducible, and holds what a container needs and no more."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from lab import rootfs
from lab.image import Image, build
from lab.paths import LabPaths
from lab.process import LabError


def read_blob(image: Image, digest: str) -> bytes:
    """A blob of the layout, verified."""
    algorithm, _, name = digest.partition(":")
    content = (image.layout_dir / "blobs" / algorithm / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == name
    return content


def test_two_builds_give_the_same_digest(paths: LabPaths, tmp_path: Path) -> None:
    """Nothing but the packages goes into the image: no clock, no path, no user."""
    other = LabPaths(tmp_path / "lab")

    first = build(paths, cache=tmp_path / "cache-1")
    second = build(other, cache=tmp_path / "cache-2")

    assert first.digest == second.digest
    manifest = json.loads(read_blob(first, first.digest))
    config = json.loads(read_blob(first, manifest["config"]["digest"]))
    layer = manifest["layers"][0]["digest"]
    read_blob(first, layer)
    assert config["rootfs"]["diff_ids"] == [layer]  # the layer is not compressed
    with tarfile.open(first.layout_dir / "blobs" / "sha256" / layer.partition(":")[2]) as tar:
        members = {member.name: member for member in tar}
    assert {"usr/bin/python3", "usr/bin/sh", "usr/bin/busybox", "etc/passwd"} <= members.keys()
    assert not [name for name, member in members.items() if member.isdev()]
    assert not [name for name, member in members.items() if member.isreg() and member.mode & 0o6000]


def test_a_cached_image_is_not_built_again(
    paths: LabPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lab that comes up again fetches nothing, and changes nothing in the cache."""
    kept = tmp_path / rootfs.recipe()
    kept.mkdir()
    (kept / "index.json").write_text('{"manifests": [{"digest": "sha256:cached"}]}')
    monkeypatch.setattr("lab.rootfs.PACKAGES", ("no-such-package",))

    image = build(paths, cache=tmp_path)

    assert image.digest == "sha256:cached"
    assert image.layout_dir.is_relative_to(paths.root)


def test_a_package_that_cannot_be_fetched_is_named(
    paths: LabPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error holds what apt said, and nothing half-done is kept."""
    monkeypatch.setattr("lab.rootfs.PACKAGES", ("no-such-package",))

    with pytest.raises(LabError, match="Unable to locate package no-such-package"):
        build(paths, cache=tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert not (paths.root / "images" / "demo").exists()
