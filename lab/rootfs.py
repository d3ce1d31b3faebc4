"""A root file system as one reproducible tar, merged from Debian packages."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path, PurePosixPath

from lab.process import LabError

PACKAGES = ("python3-minimal", "libpython3-stdlib", "busybox-static")
UNUSED = ("dpkg_", "tar_")  # only maintainer scripts, which do not run, would need them
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")
MOMENT = 1704067200  # the time of every file: 2024-01-01

# What packages put here belongs below /usr on every current Debian; base-files would link it.
MERGED = ("bin", "lib", "lib64", "sbin")

DIRECTORIES = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/sbin", "var", "work")
FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}

Entries = dict[str, tuple[tarfile.TarInfo, bytes]]


def recipe() -> str:
    """A name for what `assemble` makes; it changes with this module and the architecture."""
    return sha256(architecture().encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def architecture() -> str:
    """The machine's architecture as Debian, and OCI with it, calls it."""
    return _run(["dpkg", "--print-architecture"]).decode().strip()


def assemble(scratch: Path) -> Path:
    """Fetch the packages with all they depend on and merge them into `scratch/rootfs.tar`.

    Raises:
        LabError: a package could not be fetched, or holds what an image must not.
    """
    entries: Entries = {}
    for name in DIRECTORIES:
        _add(entries, _info(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755))
    for name, content in FILES.items():
        _add(entries, _info(name, tarfile.REGTYPE, 0o644), content)
    for package in _fetch(scratch):
        _unpack(package, entries)
    for name in _busybox_applets(entries, scratch):
        if f"usr/bin/{name}" not in entries and f"usr/sbin/{name}" not in entries:
            _add(entries, _info(f"usr/bin/{name}", tarfile.SYMTYPE, 0o777, target="busybox"))
    for name in MERGED:
        if f"usr/{name}" in entries:
            _add(entries, _info(name, tarfile.SYMTYPE, 0o777, target=f"usr/{name}"))
    target = scratch / "rootfs.tar"
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        # Links last: a hard link must find its target.
        for name in sorted(entries, key=lambda name: (entries[name][0].islnk(), name)):
            info, content = entries[name]
            tar.addfile(info, io.BytesIO(content))
    return target


def _fetch(scratch: Path) -> list[Path]:
    """Let apt resolve, download and verify, in directories of its own and with no package present."""
    for name in ("lists/partial", "archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
        "Dir::Log": scratch,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    # Not checked: one broken source among the machine's need not concern us; the next step tells.
    update = subprocess.run(
        ["apt-get", *options, "update"], capture_output=True, text=True, check=False
    )
    try:
        _run(["apt-get", *options, "--download-only", "--yes", "install", *PACKAGES])
    except LabError as error:
        raise LabError(f"{error}\n--- apt-get update\n{update.stdout}{update.stderr}") from error
    packages = sorted((scratch / "archives").glob("*.deb"))
    return [package for package in packages if not package.name.startswith(UNUSED)]


def _unpack(package: Path, entries: Entries) -> None:
    content = _run(["dpkg-deb", "--fsys-tarfile", str(package)])
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            name = _merged(member.name)
            if not name or any(PurePosixPath(name).is_relative_to(place) for place in LEFT_OUT):
                continue
            if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                raise LabError(f"{package.name} holds {name}, which is no file, directory or link")
            target = _merged(member.linkname) if member.islnk() else member.linkname
            file = tar.extractfile(member) if member.isreg() else None
            info = _info(name, member.type, member.mode & 0o777, target=target)
            _add(entries, info, file.read() if file else b"")


def _busybox_applets(entries: Entries, scratch: Path) -> list[str]:
    busybox = scratch / "busybox"
    busybox.write_bytes(entries["usr/bin/busybox"][1])
    busybox.chmod(0o700)
    return _run([str(busybox), "--list"]).decode().split()


def _add(entries: Entries, info: tarfile.TarInfo, content: bytes = b"") -> None:
    if info.isdir() and info.name in entries:
        return
    info.size = len(content)
    entries[info.name] = (info, content)


def _info(name: str, kind: bytes, mode: int, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.mtime = kind, mode, target, MOMENT
    return info


def _merged(name: str) -> str:
    path = PurePosixPath(name)
    if path.parts and path.parts[0] in MERGED:
        path = "usr" / path
    return "" if path == PurePosixPath() else str(path)


def _run(command: list[str]) -> bytes:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    outcome = subprocess.run(command, env=environment, capture_output=True, check=False)
    if outcome.returncode != 0:
        raise LabError(f"{' '.join(command)} failed:\n{outcome.stderr.decode(errors='replace')}")
    return outcome.stdout
