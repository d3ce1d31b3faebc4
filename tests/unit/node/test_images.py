"""The image store: verified, unpacked once, whole or not there."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from aiida_byoc.runtimes import images
from aiida_byoc.runtimes.images import ImageError, ImageStore
from tests.unit.node.oci import directory, file, layer, layout, symlink

UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


def blob(place: Path, digest: str) -> Path:
    return place / "blobs" / "sha256" / digest.removeprefix("sha256:")


def layers_of(place: Path, digest: str) -> list[str]:
    return [each["digest"] for each in json.loads(blob(place, digest).read_text())["layers"]]


def test_an_image_is_added_and_unpacked(store: ImageStore, source: Path) -> None:
    lower = layer(directory("etc"), file("etc/name", "lower"), file("gone"))
    upper = layer(file("etc/name", "upper"), file(".wh.gone"), compress=True)
    digest = layout(source, [lower, upper], env=["PATH=/bin", "MODE=a=b", "EMPTY="])

    store.add(source, digest)
    store.add(source, digest)
    root = store.rootfs(digest)

    assert store.digests() == [digest]
    assert store.environment(digest) == {"PATH": "/bin", "MODE": "a=b", "EMPTY": ""}
    assert (root / "etc" / "name").read_text() == "upper"
    assert {path.name for path in root.iterdir()} == {"etc", "proc", "dev", "tmp", "work"}
    assert root.stat().st_mode & 0o777 == 0o755


def test_the_image_is_unpacked_once(
    store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = layout(source, [layer(file("a"))])
    store.add(source, digest)
    first = store.rootfs(digest)

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(images, "apply_layer", refuse)
    assert store.rootfs(digest) == first


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_damaged_source_is_not_added(
    store: ImageStore, source: Path, what: str, how: str
) -> None:
    digest = layout(source, [layer(file("a")), layer(file("b"))])
    config = json.loads(blob(source, digest).read_text())["config"]["digest"]
    victims = {"manifest": digest, "config": config, "layer": layers_of(source, digest)[1]}
    path = blob(source, victims[what])
    if how == "altered":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path.unlink()

    with pytest.raises(ImageError, match=f"{victims[what]} .*{how}"):
        store.add(source, digest)
    assert store.digests() == []


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_blob_that_was_damaged_in_the_store_is_not_unpacked(
    store: ImageStore, source: Path, tmp_path: Path, how: str
) -> None:
    digest = layout(source, [layer(file("a")), layer(file("b"))])
    store.add(source, digest)
    kept = tmp_path / "store" / "layouts" / digest.removeprefix("sha256:")
    victim = blob(kept, layers_of(kept, digest)[1])
    content = bytearray(victim.read_bytes())
    content[0] ^= 1
    victim.unlink()
    if how == "altered":
        victim.write_bytes(content)

    with pytest.raises(ImageError, match=how):
        store.rootfs(digest)
    assert [path.name for path in (tmp_path / "store" / "rootfs").iterdir()] == [".lock"]


def test_an_image_that_is_not_in_the_store_is_named(store: ImageStore) -> None:
    with pytest.raises(ImageError, match=f"{UNKNOWN} is not in the node's image store"):
        store.rootfs(UNKNOWN)


@pytest.mark.parametrize(
    "digest",
    ["", "latest", "sha256:", "sha256:../../etc", "sha512:" + "0" * 64, "sha256:" + "A" * 64],
)
def test_what_is_no_digest_is_refused(store: ImageStore, source: Path, digest: str) -> None:
    for use in (store.rootfs, store.environment, lambda digest: store.add(source, digest)):
        with pytest.raises(ImageError, match="is not a sha256 digest"):
            use(digest)


@pytest.mark.parametrize("content", [b'{"manifests": []}', b"[]", b"no JSON"])
def test_what_is_no_manifest_is_refused(store: ImageStore, source: Path, content: bytes) -> None:
    layout(source, [content])
    digest = next(
        f"sha256:{path.name}"
        for path in (source / "blobs" / "sha256").iterdir()
        if path.read_bytes() == content
    )

    with pytest.raises(ImageError, match=r"not the manifest|not JSON"):
        store.add(source, digest)


def test_mount_points_are_directories_of_the_image(store: ImageStore, source: Path) -> None:
    """Whatever the image has there: a link would lead the runtime out of it."""
    digest = layout(source, [layer(symlink("tmp", "/"), file("work"), directory("proc"))])
    store.add(source, digest)

    root = store.rootfs(digest)

    for name in ("proc", "dev", "tmp", "work"):
        assert (root / name).is_dir()
        assert not (root / name).is_symlink()


def test_an_unpacking_that_breaks_off_leaves_nothing(
    store: ImageStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = layout(source, [layer(file("a")), layer(file("b"))])
    store.add(source, digest)
    real = images.apply_layer

    def break_off(content: object, root: Path) -> None:
        if (root / "a").exists():
            raise KeyboardInterrupt
        real(content, root)

    monkeypatch.setattr(images, "apply_layer", break_off)
    with pytest.raises(KeyboardInterrupt):
        store.rootfs(digest)
    place = tmp_path / "store" / "rootfs"
    assert [path.name for path in place.iterdir()] == [".lock"]

    monkeypatch.undo()
    assert (store.rootfs(digest) / "b").is_file()


def test_what_a_killed_process_left_is_removed(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    digest = layout(source, [layer(file("a"))])
    store.add(source, digest)
    abandoned = tmp_path / "store" / "rootfs" / ".draft-killed"
    abandoned.mkdir(parents=True)

    store.rootfs(digest)

    assert not abandoned.exists()


def unpack(directory: Path, digest: str, together: object, results: object) -> None:
    together.wait(30)  # type: ignore[attr-defined]
    root = ImageStore(directory).rootfs(digest)
    results.put((str(root), root.stat().st_ino, len(list(root.rglob("f*")))))  # type: ignore[attr-defined]


def test_processes_that_unpack_at_once_share_one_image(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    digest = layout(source, [layer(*(file(f"d/f{number}", "x") for number in range(500)))])
    store.add(source, digest)
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(4), context.Queue()
    arguments = (tmp_path / "store", digest, together, results)
    processes = [context.Process(target=unpack, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()

    seen = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert len(seen) == 1
    assert next(iter(seen))[2] == 500
    assert {path.name for path in (tmp_path / "store" / "rootfs").iterdir()} == {
        ".lock",
        digest.removeprefix("sha256:"),
    }
