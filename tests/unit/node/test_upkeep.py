"""The store under suspicion: what was altered is found, what nobody needs goes, what somebody needs stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aiida_byoc.runtimes.images import ImageMissing, ImageStore
from aiida_byoc.runtimes.upkeep import condition, dispensable, remove, retire
from tests.unit.node.oci import directory, file, layer, layout, link, symlink

UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def keep(store: ImageStore, tmp_path: Path) -> Callable[[str], str]:
    """Put an image into the store and unpack it."""

    def keep(name: str = "a") -> str:
        entries = [
            directory("etc"),
            file("etc/passwd", f"{name}:x"),
            file("bin/tool", "#!", mode=0o755),
            link("bin/alias", "bin/tool"),
            symlink("sh", "bin/tool"),
            file("odd \udce4\n", "not UTF-8"),
        ]
        digest = layout(tmp_path / name, [layer(*entries), layer(file("top"))])
        store.add(tmp_path / name, digest)
        store.rootfs(digest)
        return digest

    return keep


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda root: (root / "etc/passwd").write_text("b:x"), "'etc/passwd' was changed"),
    "mode": (lambda root: (root / "bin/tool").chmod(0o4755), "'bin/tool' was changed"),
    "mode of a directory": (lambda root: (root / "etc").chmod(0o777), "'etc' was changed"),
    "a file more": (lambda root: (root / "etc/cron").write_text("x"), "'etc/cron' was added"),
    "a file less": (lambda root: (root / "top").unlink(), "'top' is missing"),
    "another link": (
        lambda root: ((root / "sh").unlink(), (root / "sh").symlink_to("/bin/sh")),
        "'sh' was changed",
    ),
    "a link for a file": (
        lambda root: ((root / "top").unlink(), (root / "top").symlink_to("etc/passwd")),
        "'top' was changed",
    ),
    "a device": (lambda root: os.mkfifo(root / "pipe"), "'pipe' was added"),
    "a directory less": (lambda root: (root / "work").rmdir(), "'work' is missing"),
    "an odd name": (
        lambda root: (root / "odd \udce4\n").write_text("not utf-8"),
        r"'odd \udce4\n' was changed",
    ),
}


@pytest.mark.parametrize(("change", "words"), TAMPERED.values(), ids=TAMPERED.keys())
def test_i25_a_tampered_root_is_found_and_mended(
    store: ImageStore,
    keep: Callable[[str], str],
    change: Callable[[Path], object],
    words: str,
) -> None:
    digest = keep("a")
    assert condition(store, digest).is_sound
    change(store.rootfs(digest))

    found = condition(store, digest)

    assert not found.is_sound
    assert found.files[0].startswith(words) or words in found.files
    assert found.blobs == []
    store.unpack_anew(digest)
    assert condition(store, digest).is_sound


def test_an_altered_blob_is_found(store: ImageStore, keep: Callable[[str], str]) -> None:
    """Although what was unpacked of it is sound."""
    digest = keep("a")
    layer_ = store.image(digest).layers[0].digest
    (store.layout(digest) / "blobs/sha256" / layer_.removeprefix("sha256:")).write_bytes(b"x")

    found = condition(store, digest)

    assert found.files == []
    assert [sentence for sentence in found.blobs if layer_ in sentence] == found.blobs != []


@pytest.mark.parametrize("which", ["manifest", "files"])
@pytest.mark.parametrize("how", ["gone", "without sense"])
def test_what_is_known_of_a_root_is_doubted_as_well(
    store: ImageStore, keep: Callable[[str], str], which: str, how: str
) -> None:
    digest = keep("a")
    victim = store.unpacked(digest) / which
    victim.unlink() if how == "gone" else victim.write_text("{")

    assert condition(store, digest).files != []


@pytest.mark.parametrize("what", ["a manifest", "a whole layout"])
def test_a_layout_that_has_lost_something_is_told(
    store: ImageStore, keep: Callable[[str], str], what: str
) -> None:
    digest = keep("a")
    victim = store.layout(digest)
    if what == "a manifest":
        (victim / "blobs/sha256" / digest.removeprefix("sha256:")).unlink()
    else:
        shutil.rmtree(victim)

    assert "missing" in condition(store, digest).blobs[0]


def test_an_image_that_is_not_there_is_no_damage(store: ImageStore) -> None:
    with pytest.raises(ImageMissing):
        condition(store, UNKNOWN)


def names(places: list[Path]) -> set[str]:
    return {f"{place.parent.name}/{place.name[:10]}" for place in places}


def test_what_is_named_or_used_stays(store: ImageStore, keep: Callable[[str], str]) -> None:
    named, used, neither = keep("named"), keep("used"), keep("neither")

    places = dispensable(store, named={named}, used={used})

    short = neither.removeprefix("sha256:")[:10]
    assert names(places) == {f"layouts/{short}", f"unpacked/{short}"}
    for place in places:
        aside = retire(store, place)
        assert aside is not None
        assert remove(aside) > 0
    assert set(store.digests()) == {named, used}
    assert not store.is_unpacked(neither)
    assert dispensable(store, named={named}, used={used}) == []


def test_what_somebody_is_busy_with_stays(store: ImageStore, keep: Callable[[str], str]) -> None:
    digest = keep("a")
    places = dispensable(store, named=set(), used=set())

    with store.lock(digest):
        assert [retire(store, place) for place in places] == [None, None]

    assert store.is_unpacked(digest)


@pytest.mark.parametrize(
    ("name", "free", "named", "used"),
    [
        ("layouts/.draft-{}", True, False, False),
        ("unpacked/.draft-{}-abc", True, True, True),
        ("layouts/.old-{}-abc", True, True, False),
        ("unpacked/.old-{}-abc", True, True, False),
        ("unpacked/.old-.draft-{}-abc-abc", True, True, False),
        ("unpacked/notes", False, False, False),
    ],
)
def test_leftovers_go(store: ImageStore, name: str, free: bool, named: bool, used: bool) -> None:
    """What a download that broke off left, once nobody wants the image; a killed unpacking, at once; what was replaced,
    once no job can be running on it.
    """
    digest = "sha256:" + "a" * 64
    place = store.directory / name.format("a" * 64)
    place.mkdir(parents=True)
    (place / "x").write_text("x")

    def goes(*, is_named: bool, is_used: bool) -> bool:
        found = dispensable(
            store, named={digest} if is_named else set(), used={digest} if is_used else set()
        )
        return found == [place]

    assert goes(is_named=False, is_used=False) is free
    assert goes(is_named=True, is_used=False) is named
    assert goes(is_named=True, is_used=True) is used
    if free:
        aside = retire(store, place)
        assert aside is not None
        remove(aside)
        assert list(store.directory.glob("*/*")) == [store.directory / "locks" / ("a" * 64)]


def test_what_is_shared_is_not_freed(store: ImageStore, tmp_path: Path) -> None:
    """A blob that another image has as well."""
    base = layer(file("base", "x" * 2**20))
    one = layout(tmp_path / "source", [base])
    other = layout(tmp_path / "source", [base, layer(file("top"))])
    store.add(tmp_path / "source", one)
    store.add(tmp_path / "source", other)

    (place,) = dispensable(store, named={one}, used=set())
    aside = retire(store, place)
    assert aside is not None

    assert remove(aside) < 2**20
    assert condition(store, one).is_sound


def test_a_job_keeps_the_root_it_runs_in_while_it_is_replaced(
    store: ImageStore, keep: Callable[[str], str]
) -> None:
    digest = keep("a")
    root = os.open(store.rootfs(digest), os.O_RDONLY)
    try:
        store.unpack_anew(digest)
        used = dispensable(store, named={digest}, used={digest})

        assert used == []
        assert os.stat("top", dir_fd=root)
        assert len(dispensable(store, named={digest}, used=set())) == 1
    finally:
        os.close(root)
