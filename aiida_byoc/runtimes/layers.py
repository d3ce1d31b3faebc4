"""One layer of an OCI image onto a directory (image-spec, layer.md), never outside it.

By hand, because the extraction filters of PEP 706 are missing from Python 3.11.2 (Debian 12), let hard links reach
outside, and know neither whiteouts nor that an absolute link of an image means the image's own root.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from aiida_byoc.runtimes.oci import ImageError

__all__ = ["ImageError", "apply_layer", "remove"]

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_GZIP = b"\x1f\x8b"
_MACHINE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}
"""What no image can bring about: these tell of the disk, the rest of the archive."""


def apply_layer(layer: BinaryIO, root: Path) -> None:
    """Unpack a tar archive, plain or gzip: its whiteouts first, wherever they stand, then its entries.

    Devices and sockets are skipped. Owners are dropped (only root could set them) and so are set-id bits; the owner may
    always read, and write into directories, or an ordinary user could not go on unpacking.

    Raises:
        ImageError: the archive is damaged, or an entry reaches outside `root`.
        OSError: the disk is full, or otherwise not to be written.
    """
    root = root.resolve()
    try:
        for step in (_whiteout, _entry):
            layer.seek(0)
            with tarfile.open(fileobj=_decompressed(layer), mode="r|") as archive:
                for member in archive:
                    step(archive, member, root)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        raise ImageError(f"a layer (tar, plain or gzip) cannot be unpacked: {error}") from error


def remove(path: Path) -> None:
    """Remove whatever is there, without following a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _decompressed(layer: BinaryIO) -> BinaryIO:
    magic = layer.read(len(_GZIP))
    layer.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=layer)) if magic == _GZIP else layer


def _whiteout(_: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = PurePosixPath(member.name).name
    if not name.startswith(_WHITEOUT):
        return
    directory = _inside(member.name, root).parent
    hidden = name.removeprefix(_WHITEOUT)
    if name == _OPAQUE:
        for child in directory.iterdir() if directory.is_dir() else ():
            remove(child)
    elif hidden in {"", ".", ".."}:
        raise ImageError(f"the layer hides {member.name!r}, which names no file")
    elif not hidden.startswith(_WHITEOUT) and directory.is_dir():  # the rest is bookkeeping of AUFS
        remove(directory / hidden)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    kept = member.isfile() or member.isdir() or member.issym() or member.islnk()
    target = _inside(member.name, root)
    if not kept or target == root or PurePosixPath(member.name).name.startswith(_WHITEOUT):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        if target.is_symlink() or not target.is_dir():
            remove(target)
            target.mkdir()
        target.chmod(member.mode & 0o755 | 0o700)
        return
    if member.islnk():
        _link(_inside(member.linkname, root), target, member)
        return
    remove(target)  # never write through what an earlier layer left there
    if member.issym():
        target.symlink_to(member.linkname)
        return
    content = archive.extractfile(member)
    assert content is not None  # noqa: S101  (it is a file)
    with target.open("xb") as file:
        shutil.copyfileobj(content, file)
    target.chmod(member.mode & 0o755 | 0o400)
    os.utime(target, (member.mtime, member.mtime))  # Python's byte code counts on it


def _link(source: Path, target: Path, member: tarfile.TarInfo) -> None:
    if source.is_symlink() or not source.is_file():
        raise ImageError(f"the layer links {member.name!r} to what is no file of the image")
    if source != target:
        remove(target)
        os.link(source, target)


def _inside(name: str, root: Path) -> Path:
    """The place of an entry; the last part may be a link, the way there may not lead out of the image."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts:
        return root
    parent = Path(os.path.realpath(root.joinpath(*parts[:-1])))
    if ".." in parts or not parent.is_relative_to(root):
        raise ImageError(f"the layer puts {name!r} outside the image")
    return parent / parts[-1]
