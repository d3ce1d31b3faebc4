"""Layers are applied as image-spec says, and no entry of any layer reaches outside the image."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from aiida_byoc.runtimes.layers import ImageError, apply_layer
from tests.unit.node.oci import Entry, device, directory, file, layer, link, symlink


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty image beside a file that is none of its business."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("untouched")
    root = tmp_path / "root"
    root.mkdir()
    return root


def apply(root: Path, *entries: Entry, compress: bool = False) -> None:
    apply_layer(io.BytesIO(layer(*entries, compress=compress)), root)


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def check_victim(root: Path) -> None:
    victim = root.parent / "victim" / "file"
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1
    assert tree(victim.parent) == {"file"}


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_files_directories_and_links_arrive(root: Path, compress: bool) -> None:
    apply(
        root,
        directory("usr"),
        directory("usr/bin"),
        symlink("bin", "usr/bin"),
        file("usr/bin/tool", "#!", mode=0o755, mtime=1_000_000_000),
        link("usr/bin/alias", "usr/bin/tool"),
        file("bin/through", "a relative link within the image is fine"),
        symlink("etc/localtime", "/usr/share/zoneinfo/UTC"),
        compress=compress,
    )

    assert (root / "usr/bin/tool").read_text() == "#!"
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (root / "usr/bin/tool").stat().st_mtime == 1_000_000_000
    assert (root / "usr/bin/alias").samefile(root / "usr/bin/tool")
    assert (root / "usr/bin/through").is_file()
    assert (root / "etc/localtime").readlink() == Path("/usr/share/zoneinfo/UTC")


def test_leading_slashes_and_dots_mean_the_images_root(root: Path) -> None:
    apply(root, directory("./"), directory("/"), file("./a"), file("/b"), file("c/./d"))

    assert tree(root) == {"a", "b", "c", "c/d"}


def test_owners_and_privileges_are_dropped(root: Path) -> None:
    """Also by name: `postgres` of the image is nobody here. What the owner needs to go on is kept."""
    apply(
        root,
        file("su", mode=0o6755, uid=12345, gid=12345, uname="postgres", gname="postgres"),
        file("shadow", mode=0o000),
        directory("open", mode=0o1777),
        directory("closed", mode=0o555),
        file("closed/in", mode=0o666),
    )

    modes = {path.name: path.stat().st_mode & 0o7777 for path in root.rglob("*")}
    assert modes == {"su": 0o755, "shadow": 0o400, "open": 0o755, "closed": 0o755, "in": 0o644}
    for path in root.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())


def test_devices_are_skipped(root: Path) -> None:
    apply(root, device("dev/null"), device("pipe", tarfile.FIFOTYPE), file("kept"))

    assert tree(root) == {"kept"}


def test_a_whiteout_hides_what_lower_layers_left(root: Path) -> None:
    apply(root, file("a"), directory("d"), file("d/x"), file("d/y"), symlink("s", "d"))
    apply(root, file(".wh.a"), file("d/.wh.x"), file(".wh.s"), file("none/.wh.there"))

    assert tree(root) == {"d", "d/y"}


def test_a_whiteout_hides_nothing_of_its_own_layer(root: Path) -> None:
    apply(root, file("a", "old"))
    apply(root, file("a", "new"), file(".wh.a"))

    assert (root / "a").read_text() == "new"


def test_an_opaque_directory_shows_its_own_layer_only(root: Path) -> None:
    """Wherever in the archive the mark stands."""
    apply(root, directory("d"), file("d/old"), directory("d/deep"), file("d/deep/old"))
    apply(root, file("d/before"), file("d/.wh..wh..opq"), file("d/after"))

    assert tree(root) == {"d", "d/before", "d/after"}


def test_an_opaque_directory_that_was_not_there(root: Path) -> None:
    apply(root, file("d/.wh..wh..opq"), file("d/x"), file(".wh..wh.plnk"))

    assert tree(root) == {"d", "d/x"}


@pytest.mark.parametrize("lower", [file("x", "old"), directory("x"), symlink("x", "nowhere")])
@pytest.mark.parametrize("upper", [file("x", "new"), directory("x"), symlink("x", "other")])
def test_an_entry_replaces_whatever_was_there(root: Path, lower: Entry, upper: Entry) -> None:
    apply(root, lower)
    apply(root, upper)

    path = root / "x"
    kinds = (path.is_symlink(), path.is_dir(), path.is_file())
    expected = {
        tarfile.REGTYPE: (False, False, True),
        tarfile.DIRTYPE: (False, True, False),
        tarfile.SYMTYPE: (True, False, False),
    }
    assert kinds == expected[upper[0].type]
    if path.is_file():
        assert path.read_text() == "new"


def test_a_directory_that_comes_again_keeps_its_content(root: Path) -> None:
    apply(root, directory("d"), file("d/x"))
    apply(root, directory("d", mode=0o700))

    assert tree(root) == {"d", "d/x"}
    assert (root / "d").stat().st_mode & 0o777 == 0o700


def test_replacing_one_name_leaves_the_other_of_a_hard_link(root: Path) -> None:
    apply(root, file("one", "old"), link("two", "one"))
    apply(root, file("one", "new"))

    assert ((root / "one").read_text(), (root / "two").read_text()) == ("new", "old")


def test_a_file_replaces_a_link_and_not_what_it_points_to(root: Path) -> None:
    apply(root, symlink("mtab", str(root.parent / "victim" / "file")))
    apply(root, file("mtab", "mine"))

    assert (root / "mtab").read_text() == "mine"
    assert not (root / "mtab").is_symlink()
    check_victim(root)


HOSTILE: dict[str, list[Entry]] = {
    "traversal": [file("../victim/file", "broken")],
    "traversal within": [file("a/../../victim/file", "broken")],
    "absolute traversal": [file("/../victim/file", "broken")],
    "directory": [directory("../victim/new")],
    "parent": [directory("..", mode=0o700)],
    "root by another name": [directory("a"), symlink("a/..", "x")],
    "symlink": [symlink("../victim/file", "x")],
    "relative link then file": [symlink("l", "../victim"), file("l/file", "broken")],
    "relative link then directory": [symlink("l", "../victim"), directory("l/new")],
    "two links then file": [symlink("a", "b"), symlink("b", "../victim"), file("a/file", "x")],
    "link then link": [symlink("l", "../victim"), symlink("l/new", "x")],
    "hard link outside": [link("stolen", "../victim/file")],
    "hard link through a link": [symlink("l", "../victim"), link("stolen", "l/file")],
    "hard link to a link": [symlink("l", "../victim/file"), link("stolen", "l")],
    "hard link below a link": [file("f"), symlink("l", "../victim"), link("l/new", "f")],
    "hard link to nothing": [link("stolen", "nothing")],
    "whiteout": [file("../victim/.wh.file")],
    "whiteout of the parent": [file("a/x"), file("a/.wh...")],
    "whiteout of the root's parent": [file(".wh...")],
    "whiteout of itself": [file("a/x"), file("a/.wh..")],
    "whiteout of nothing": [file(".wh.")],
    "opaque": [file("../victim/.wh..wh..opq")],
    "link that loops": [symlink("l", "l"), file("l/x")],
    "file as a directory": [file("f"), file("f/x")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_i25_what_reaches_outside_is_refused(root: Path, entries: list[Entry]) -> None:
    """In one layer, and with the trap laid by the layer below."""
    with pytest.raises(ImageError):
        apply(root, *entries)
    check_victim(root)

    *traps, last = entries
    for trap in traps:
        apply(root, trap)
    with pytest.raises(ImageError):
        apply(root, last)
    check_victim(root)


@pytest.mark.parametrize("last", [".wh.file", ".wh..wh..opq", "file"])
@pytest.mark.parametrize("absolute", [False, True])
def test_i25_whiteouts_and_files_do_not_follow_links_out(
    root: Path, last: str, absolute: bool
) -> None:
    apply(root, symlink("l", str(root.parent / "victim") if absolute else "../victim"))

    with pytest.raises(ImageError, match="outside the image"):
        apply(root, file(f"l/{last}", "broken"))
    check_victim(root)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"no archive at all" * 99, layer(file("a", "x" * 5000))[:2000], b"\x1f\x8bjunk",
     layer(file("a", "x" * 5000), compress=True)[:-20]],
    ids=["empty", "junk", "cut short", "no gzip", "gzip cut short"],
)  # fmt: skip
def test_what_is_no_archive_is_refused(root: Path, damaged: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be unpacked"):
        apply_layer(io.BytesIO(damaged), root)
