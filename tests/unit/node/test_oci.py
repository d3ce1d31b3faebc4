"""Which image a digest stands for: indexes, Docker's words for the same, and what is no image at all."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import Image, ImageError, resolve
from aiida_byoc.runtimes.sources import directory
from tests.unit.node.oci import DOCKER, OCI, file, index, layer, layout, name

HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ELSEWHERE = "s390x" if HERE != "s390x" else "amd64"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def image(place: Path, digest: str) -> Image:
    return resolve(directory(place), digest)


def test_an_index_stands_for_the_image_of_this_machine(place: Path) -> None:
    wanted = layout(place, [layer(file("here"))])
    other = layout(place, [layer(file("elsewhere"))])
    top = index(
        place, {f"linux/{ELSEWHERE}": other, f"linux/{HERE}": wanted, f"windows/{HERE}": other}
    )

    found = image(place, top)

    assert found.manifest.digest == wanted
    assert (found.index, found.platform) == (top, f"linux/{HERE}")
    assert image(place, wanted).index is None


def test_without_a_variant_comes_what_every_machine_runs(place: Path) -> None:
    common, special = (layout(place, [layer(file(each))]) for each in ("common", "special"))

    top = index(place, {f"linux/{HERE}/v3": special, f"linux/{HERE}": common})
    only = index(place, {f"linux/{HERE}/v3": special})

    assert image(place, top).manifest.digest == common
    assert image(place, only).platform == f"linux/{HERE}/v3"


def test_what_an_index_has_instead_is_named(place: Path) -> None:
    """Attestations, whose platform is unknown, are no images."""
    one = layout(place, [layer(file("a"))])
    top = index(place, {f"linux/{ELSEWHERE}": one, "unknown/unknown": one})

    with pytest.raises(
        ImageError, match=f"no image for linux/{HERE}.* has: linux/{ELSEWHERE}, unknown/unknown"
    ):
        image(place, top)


def test_an_index_in_an_index_is_followed_but_not_for_ever(place: Path) -> None:
    digest = layout(place, [layer(file("a"))])
    tops = [digest]
    for _ in range(3):
        tops.append(index(place, {f"linux/{HERE}": tops[-1]}))

    assert image(place, tops[2]).index == tops[2]
    assert image(place, tops[2]).manifest.digest == digest
    with pytest.raises(ImageError, match=f"{tops[3]} is an index of indexes"):
        image(place, tops[3])


@pytest.mark.parametrize("compress", [False, True])
def test_dockers_words_are_understood(place: Path, tmp_path: Path, compress: bool) -> None:
    """Manifest and manifest list of version 2, whatever the layer's compression is said to be."""
    digest = layout(place, [layer(file("a"), compress=compress)], kinds=DOCKER)
    top = index(place, {f"linux/{HERE}": digest}, kind=DOCKER.index)
    store = ImageStore(tmp_path / "store")

    taken = store.add(place, top)

    assert (taken.manifest.digest, taken.index) == (digest, top)
    assert taken.manifest.media_type == DOCKER.manifest
    assert (store.rootfs(digest) / "a").is_file()


def said(kind: str) -> dict[str, object]:
    """A descriptor of content that nobody gets to see."""
    return {"mediaType": kind, "digest": "sha256:" + "0" * 64, "size": 1}


REFUSED = {
    "zstd": (
        {"layers": [said("application/vnd.oci.image.layer.v1.tar+zstd")]},
        r"tar\+zstd; this node unpacks .*skopeo",
    ),
    "of another kind": (
        {"layers": [said("text/plain")]},
        r"of the kind text/plain; this node unpacks tar, plain or gzip$",
    ),
    "kept elsewhere": (
        {"layers": [said("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]},
        "does not come with its image",
    ),
    "an artifact": (
        {"config": said("application/vnd.cncf.helm.config.v1+json")},
        "no container image; it holds application/vnd.cncf.helm",
    ),
    "of long ago": ({"schemaVersion": 1}, "Docker manifest of schema 1"),
    "two things": ({"manifests": []}, "both an index and a manifest"),
    "without a configuration": ({"config": None}, "not the manifest"),
    "with layers of no form": ({"layers": [{"digest": "sha256:1"}]}, "not the manifest"),
    "with a size of no form": ({"layers": [{**said(OCI.layer), "size": "1"}]}, "not the manifest"),
    "with a negative size": ({"layers": [{**said(OCI.layer), "size": -1}]}, "not the manifest"),
    "with a digest that leads out": (
        {"layers": [{**said(OCI.layer), "digest": "sha256:../../etc/passwd"}]},
        "not a sha256 digest",
    ),
    "with another algorithm": (
        {"layers": [{**said(OCI.layer), "digest": "sha512:" + "0" * 128}]},
        "not a sha256 digest",
    ),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_this_node_cannot_run_is_refused_before_it_is_copied(
    place: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    digest = layout(place, [layer(file("a"))], **changes)
    store = ImageStore(tmp_path / "store")

    with pytest.raises(ImageError, match=words):
        store.add(place, digest)
    assert store.digests() == []


@pytest.mark.parametrize(
    "content", [b'{"manifests": 1}', b'{"manifests": [1]}', b'{"manifests": [{}]}']
)
def test_an_index_of_no_form_is_refused(place: Path, content: bytes) -> None:
    with pytest.raises(ImageError, match="not the index of an image"):
        image(place, name(place, content, OCI.index))


def test_a_document_is_bounded(place: Path) -> None:
    huge = name(place, json.dumps({"x": "x" * 5 * 2**20}).encode(), OCI.manifest)

    with pytest.raises(ImageError, match="too large for a manifest"):
        image(place, huge)
