"""Layouts as directories and as archives; what is none says so."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import ImageError
from aiida_byoc.runtimes.sources import archive, directory
from tests.unit.node import oci
from tests.unit.node.oci import file, layer, layout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def take(store: ImageStore, packed: Path) -> str:
    """What `images add ARCHIVE` does."""
    with archive(packed, store.directory) as source:
        return store.take(source, source.digest()).manifest.digest


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_taken(place: Path, store: ImageStore, tmp_path: Path, mode: str) -> None:
    layers = [layer(file(f"f{number}", "x" * 10_000), compress=True) for number in range(3)]
    digest = layout(place, layers)

    assert take(store, oci.archive(place, tmp_path / "image.tar", mode)) == digest
    assert len(list(store.rootfs(digest).glob("f*"))) == 3
    assert {path.name for path in store.directory.iterdir()} == {"layouts", "locks", "unpacked"}


def test_only_the_archives_layout_counts(place: Path, store: ImageStore, tmp_path: Path) -> None:
    """Docker writes its own index beside OCI's; a name that comes twice is the last one's."""
    digest = layout(place, [layer(file("a"))])
    packed = oci.archive(place, tmp_path / "image.tar")
    with tarfile.open(packed, "a") as more:
        for name in ("manifest.json", "repositories"):
            more.addfile(*entry(name, b"[]"))
        more.addfile(*entry("index.json", (place / "index.json").read_bytes()))

    assert take(store, packed) == digest


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.8])
def test_a_truncated_archive_is_told(
    place: Path, store: ImageStore, tmp_path: Path, mode: str, part: float
) -> None:
    layout(place, [layer(file("a", os.urandom(30_000).hex()))])
    packed = oci.archive(place, tmp_path / "image.tar", mode)
    os.truncate(packed, int(packed.stat().st_size * part))

    with pytest.raises(ImageError, match=r"image\.tar is no whole tar archive|is no OCI layout"):
        take(store, packed)
    assert store.digests() == []


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 99, b"\x1f\x8bjunk"])
def test_what_is_no_archive_is_told(store: ImageStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(content)

    with pytest.raises(ImageError, match=r"image\.tar is no"):
        take(store, tmp_path / "image.tar")


def entry(
    name: str, content: bytes = b"x", **attributes: object
) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, io.BytesIO(content)


@pytest.mark.parametrize("name", ["../index.json", "blobs/../../x", "/etc/passwd", "a/.."])
def test_i25_an_archive_that_reaches_outside_is_refused(
    place: Path, store: ImageStore, tmp_path: Path, name: str
) -> None:
    layout(place, [layer(file("a"))])
    packed = oci.archive(place, tmp_path / "image.tar")
    with tarfile.open(packed, "a") as more:
        more.addfile(*entry(name))

    with pytest.raises(ImageError, match="reaches outside"):
        take(store, packed)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_i25_in_an_archive_only_files_are_blobs(
    place: Path, store: ImageStore, tmp_path: Path, kind: bytes
) -> None:
    """Whatever a link would lead to."""
    digest = layout(place, [layer(file("a"))])
    blob = json.loads((place / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())[
        "layers"
    ][0]
    name = f"blobs/sha256/{blob['digest'].removeprefix('sha256:')}"
    (place / name).unlink()
    packed = oci.archive(place, tmp_path / "image.tar")
    with tarfile.open(packed, "a") as more:
        more.addfile(*entry(name, b"", type=kind, linkname="/etc/passwd"))

    with pytest.raises(ImageError, match=f"{blob['digest']} is missing"):
        take(store, packed)


def test_a_docker_archive_names_the_tool_that_helps(store: ImageStore, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "image.tar", "w") as packed:
        packed.addfile(*entry("manifest.json", b"[]"))

    with pytest.raises(ImageError, match="is a Docker archive; let `skopeo copy docker-archive"):
        take(store, tmp_path / "image.tar")


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_a_directory_without_its_index_is_no_layout(place: Path, name: str) -> None:
    layout(place, [layer(file("a"))])
    (place / name).unlink()

    with pytest.raises(ImageError, match=f"is no OCI layout: it has no {name}"):
        directory(place)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"manifests": 3}', b'{"manifests": [{}]}'])
def test_an_index_without_sense_is_told(place: Path, content: bytes) -> None:
    layout(place, [layer(file("a"))])
    (place / "index.json").write_bytes(content)

    with pytest.raises(ImageError, match=r"index\.json has no sense"):
        directory(place).digest()


def test_of_several_images_one_must_be_named(place: Path, store: ImageStore) -> None:
    digests = [layout(place, [layer(file(name))]) for name in "ab"]
    entries = [{"mediaType": oci.OCI.manifest, "digest": digest, "size": 1} for digest in digests]
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))

    with pytest.raises(ImageError, match=f"has 2 images, name one of them: {', '.join(digests)}"):
        directory(place).digest()
    assert store.add(place, digests[1]).manifest.digest == digests[1]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_blob(place: Path, store: ImageStore, make: object) -> None:
    """A FIFO is not waited for."""
    digest = layout(place, [layer(file("a"))])
    victim = place / "blobs" / "sha256" / digest.removeprefix("sha256:")
    victim.unlink()
    make(victim)  # type: ignore[operator]

    with pytest.raises(ImageError, match="is missing"):
        store.add(place, digest)
