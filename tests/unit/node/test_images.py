"""The image store: verified, unpacked once, whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiida_byoc.runtimes import sources
from aiida_byoc.runtimes.images import ImageError, ImageMissing, ImageStore
from aiida_byoc.runtimes.oci import Blob, SourceUnavailable
from tests.eventually import eventually
from tests.unit.node.oci import blob as put
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
    mount_points = {"etc", "proc", "dev", "sys", "tmp", "work", "scratch"}
    assert {path.name for path in root.iterdir()} == mount_points
    assert {path.name for path in (root / "etc").iterdir()} == {"name", "hosts", "resolv.conf"}
    assert root.stat().st_mode & 0o777 == 0o755


def test_the_image_is_unpacked_once(store: ImageStore, source: Path) -> None:
    """Later uses need none of its layers."""
    digest = layout(source, [layer(file("a"))])
    store.add(source, digest)
    first = store.rootfs(digest).stat()
    blob(store.layout(digest), layers_of(source, digest)[0]).unlink()

    assert store.rootfs(digest).stat() == first


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
    assert list((tmp_path / "store" / "unpacked").iterdir()) == []


def test_an_image_that_is_not_in_the_store_is_named(store: ImageStore) -> None:
    for use in (store.rootfs, store.environment):
        with pytest.raises(ImageMissing, match=f"{UNKNOWN} is not in the node's image store"):
            use(UNKNOWN)


@pytest.mark.parametrize(
    "digest",
    ["", "latest", "sha256:", "sha256:../../etc", "sha512:" + "0" * 64, "sha256:" + "A" * 64],
)
def test_what_is_no_digest_is_refused(store: ImageStore, source: Path, digest: str) -> None:
    layout(source, [layer(file("a"))])
    for use in (store.rootfs, store.environment, lambda digest: store.add(source, digest)):
        with pytest.raises(ImageError, match="is not a sha256 digest"):
            use(digest)


@pytest.mark.parametrize("content", [b'{"layers": []}', b"[]", b"no JSON"])
def test_what_is_no_manifest_is_refused(store: ImageStore, source: Path, content: bytes) -> None:
    layout(source, [content])
    digest = put(source, content)["digest"]

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


def test_an_unpacking_that_fails_leaves_nothing(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    """Here in its second layer, which no digest can warn of."""
    digest = layout(source, [layer(file("a")), b"no archive at all" * 99])
    store.add(source, digest)

    with pytest.raises(ImageError, match="cannot be unpacked"):
        store.rootfs(digest)
    assert list((tmp_path / "store" / "unpacked").iterdir()) == []


def test_a_full_disk_is_not_the_images_fault(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    """Nor is anything else that only the machine can bring about; nothing is left behind."""
    digest = layout(source, [layer(file("big", "x" * 200_000))])
    store.add(source, digest)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from aiida_byoc.runtimes.images import ImageStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: ImageStore(Path(sys.argv[1])).rootfs(sys.argv[2])\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), digest], check=False, timeout=60
    )

    assert ended.returncode == errno.EFBIG
    assert list((tmp_path / "store" / "unpacked").iterdir()) == []
    assert (store.rootfs(digest) / "big").stat().st_size == 200_000


def test_a_process_that_is_killed_while_it_unpacks_is_no_hindrance(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    """In the middle of a layer; the next one starts anew, and what the dead one left is gone."""
    digest = layout(source, [layer(*(file(f"f{number:05}") for number in range(3000)))])
    store.add(source, digest)
    code = (
        "import sys; from pathlib import Path\n"
        "from aiida_byoc.runtimes.images import ImageStore\n"
        "ImageStore(Path(sys.argv[1])).rootfs(sys.argv[2])\n"
    )
    place = tmp_path / "store" / "unpacked"

    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), digest]) as process:
        eventually(lambda: list(place.glob(".draft-*/rootfs/f00050")) != [], "it to be unpacked")
        process.kill()
    (left,) = place.iterdir()

    assert process.returncode == -signal.SIGKILL
    assert left.name.startswith(".draft-")
    assert len(list(store.rootfs(digest).glob("f*"))) == 3000
    assert [path.name for path in place.iterdir()] == [digest.removeprefix("sha256:")]


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
    names = [path.name for path in (tmp_path / "store" / "unpacked").iterdir()]
    assert names == [digest.removeprefix("sha256:")]


def test_only_what_belongs_to_the_image_is_copied(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    """A layout may hold other images, and whatever else somebody put there."""
    layout(source, [layer(file("other"))])
    digest = layout(source, [layer(file("a")), layer(file("a"))])
    (source / "blobs" / "sha256" / "secret").write_text("x")
    (source / "notes").write_text("x")

    store.add(source, digest)

    kept = tmp_path / "store" / "layouts" / digest.removeprefix("sha256:")
    config = json.loads(blob(source, digest).read_text())["config"]["digest"]
    names = {digest, config, *layers_of(source, digest)}
    assert len(names) == 3
    assert {path.name for path in kept.iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert {f"sha256:{path.name}" for path in (kept / "blobs" / "sha256").iterdir()} == names
    assert sources.directory(kept).digest() == digest


def test_the_manifest_beside_the_root_tells_which_image_it_is(
    store: ImageStore, source: Path
) -> None:
    digest = layout(source, [layer(file("a"))])
    store.add(source, digest)

    manifest = store.rootfs(digest).with_name("manifest").read_bytes()

    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == digest


def test_images_share_the_blobs_that_both_have(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    """The second is not even asked for the layer that the first brought."""
    base = layer(file("base"))
    first, second = layout(source, [base]), layout(source, [base, layer(file("top"))])
    store.add(source, first)
    shared = layers_of(source, second)[0]
    blob(source, shared).unlink()

    store.add(source, second)

    kept = [blob(store.layout(digest), shared) for digest in (first, second)]
    assert kept[0].samefile(kept[1])


def test_adding_again_mends_what_was_damaged(store: ImageStore, source: Path) -> None:
    digest = layout(source, [layer(file("a")), layer(file("b"))])
    store.add(source, digest)
    victim = blob(store.layout(digest), layers_of(source, digest)[1])
    victim.write_bytes(b"altered")

    with pytest.raises(ImageError, match="altered"):
        store.rootfs(digest)
    store.add(source, digest)

    assert (store.rootfs(digest) / "b").is_file()


class BreakingOff:
    """A source that gives so many bytes each time it is asked, then breaks off."""

    def __init__(self, place: Path, bytes_at_once: int) -> None:
        self._layout = sources.directory(place)
        self._bytes = bytes_at_once
        self.asked: list[tuple[str, int]] = []

    def document(self, digest: str) -> bytes:
        return self._layout.document(digest)

    def read(self, blob: Blob, offset: int) -> Iterator[bytes]:
        self.asked.append((blob.digest, offset))
        content = b"".join(self._layout.read(blob, offset))
        yield content[: self._bytes]
        if len(content) > self._bytes:
            raise SourceUnavailable("broken off")


def test_a_source_that_broke_off_is_gone_on_with(store: ImageStore, source: Path) -> None:
    """From where it broke off, in a later process perhaps."""
    digest = layout(source, [layer(file("a", "x" * 30_000))])
    breaking = BreakingOff(source, 16_000)
    size = blob(source, layers_of(source, digest)[0]).stat().st_size

    for _ in range(size // 16_000):
        with pytest.raises(SourceUnavailable):
            store.take(breaking, digest)
        assert not store.has(digest)
    store.take(breaking, digest)

    offsets = [offset for name, offset in breaking.asked if name in layers_of(source, digest)]
    assert offsets == list(range(0, size, 16_000))
    assert (store.rootfs(digest) / "a").stat().st_size == 30_000


def test_a_broken_beginning_is_fetched_once_more(store: ImageStore, source: Path) -> None:
    """As a power cut leaves it: of the right length, without sense."""
    digest = layout(source, [layer(file("a", "x" * 30_000))])
    with pytest.raises(SourceUnavailable):
        store.take(BreakingOff(source, 10_000), digest)
    (partial,) = store.directory.rglob("*.partial")
    partial.write_bytes(bytes(10_000))

    store.add(source, digest)

    assert store.has(digest)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_blob_of_another_size_than_its_manifest_says_is_refused(
    store: ImageStore, source: Path, surplus: int
) -> None:
    """However right its digest."""
    layout(source, [layer(file("a"))])
    lying = put(source, layer(file("b")))
    lying["size"] += surplus
    digest = layout(source, [], layers=[lying])

    with pytest.raises(ImageError, match=f"{lying['digest']} has been altered"):
        store.add(source, digest)


def test_an_image_that_is_too_large_is_not_even_begun(store: ImageStore, source: Path) -> None:
    digest = layout(source, [layer(file("a", "x" * 2**20))])

    with pytest.raises(ImageError, match="has 1 MiB, and 1 MiB are allowed"):
        store.take(sources.directory(source), digest, most_bytes=2**20)

    assert not (store.directory / "layouts").exists()


def test_a_busy_image_keeps_no_other_waiting(store: ImageStore, source: Path) -> None:
    """Whoever pulls for an hour holds one image, not the store."""
    busy, other = layout(source, [layer(file("a"))]), layout(source, [layer(file("b"))])

    with store.lock(busy):
        store.add(source, other)
        store.rootfs(other)

        with pytest.raises(BlockingIOError), store.lock(busy, wait=False):
            pass


@pytest.mark.parametrize("config", [b'{"config": "x"}', b'{"config": {"Env": [1]}}'])
def test_a_configuration_without_sense_is_told(
    store: ImageStore, source: Path, config: bytes
) -> None:
    layout(source, [])
    kind = "application/vnd.oci.image.config.v1+json"
    digest = layout(source, [], config=put(source, config, kind))
    store.add(source, digest)

    with pytest.raises(ImageError, match="has no sense"):
        store.environment(digest)


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="no mksquashfs on PATH")
def test_an_image_in_a_single_file_is_made_once(store: ImageStore, source: Path) -> None:
    digest = layout(source, [layer(file("bin/tool", "works", mode=0o755))])
    store.add(source, digest)

    made = store.squashfs(digest)
    first = made.stat()
    again = store.squashfs(digest)

    assert (made, again.stat()) == (store.rootfs(digest).with_name("rootfs.squashfs"), first)
    held = subprocess.run(
        ["unsquashfs", "-cat", str(made), "bin/tool"], capture_output=True, check=True
    )
    assert held.stdout == b"works"


def test_without_the_program_for_it_there_is_none_and_it_says_so(
    store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = layout(source, [layer(file("a"))])
    store.add(source, digest)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(OSError, match="squashfs-tools"):
        store.squashfs(digest)
