"""What is installed on the node, held against the versions that mended known vulnerabilities: data, and one comparison.

Only what stands between tenants, or at a network, is named. A distribution mends old versions and says so in its
package's changelog; what that names is mended.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aiida_byoc.asking import said

__all__ = ["FLOORS", "Advisory", "Floor", "advisories", "is_mended"]


@dataclass(frozen=True)
class Floor:
    """The first versions without a vulnerability.

    Attributes:
        component: a program of the machine, by the command that tells its version, a server, or a Python distribution.
        mended: a version for each branch that was mended, or never open, ascending; newer branches are sound.
        cves: what was mended.
        branch: how many numbers name a branch.
    """

    component: str
    mended: tuple[str, ...]
    cves: tuple[str, ...]
    branch: int = 2


@dataclass(frozen=True)
class Advisory:
    """What a component is open to, and what mends it."""

    wrong: str
    remedy: str


FLOORS = (
    Floor("slurm", ("20.11.9", "21.08.8"), ("CVE-2022-29500", "CVE-2022-29501", "CVE-2022-29502")),
    Floor("slurm", ("22.05.10", "23.02.6"), ("CVE-2023-41914",)),
    Floor(
        "slurm",
        ("22.05.11", "23.02.7", "23.11.1"),
        ("CVE-2023-49933", "CVE-2023-49935", "CVE-2023-49936", "CVE-2023-49937", "CVE-2023-49938"),
    ),
    Floor("slurm", ("23.11.11", "24.05.8", "24.11.5"), ("CVE-2025-43904",)),
    Floor("runc", ("1.1.12",), ("CVE-2024-21626",)),
    Floor("runc", ("1.2.8", "1.3.3"), ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881")),
    Floor("apptainer", ("1.1.8",), ("CVE-2023-30549",)),
    Floor("apptainer", ("1.0.0", "1.1.0", "1.2.1"), ("CVE-2023-38496",)),
    Floor("bubblewrap", ("0.3.0", "0.4.1"), ("CVE-2020-5291",)),
    Floor("crun", ("1.4.4",), ("CVE-2022-27650",)),
    Floor(
        "postgresql",
        ("14.23", "15.18", "16.14", "17.10", "18.4"),
        ("CVE-2026-6473",),
        branch=1,
    ),
    Floor("pyjwt", ("2.4.0",), ("CVE-2022-29217",)),
    Floor("pyjwt", ("2.10.1",), ("CVE-2024-53861",)),
    Floor("cryptography", ("44.0.1",), ("CVE-2024-12797",)),
    Floor("h11", ("0.16.0",), ("CVE-2025-43859",)),
    Floor("starlette", ("0.25.0",), ("CVE-2023-30798",)),
    Floor("starlette", ("0.49.1",), ("CVE-2025-54121", "CVE-2025-62727")),
)

_PROGRAMS = {
    "slurm": ("sinfo", "--version"),
    "runc": ("runc", "--version"),
    "crun": ("crun", "--version"),
    "apptainer": ("apptainer", "--version"),
    "bubblewrap": ("bwrap", "--version"),
}
_SERVERS = {"postgresql"}
"""Nobody but whoever is connected to it knows its version."""


def is_mended(found: str, floor: Floor) -> bool:
    """Whether that version is one with the mend."""
    numbers = _numbers(found)
    if numbers >= _numbers(floor.mended[-1]):
        return True
    return any(
        numbers[: floor.branch] == _numbers(mended)[: floor.branch] and numbers >= _numbers(mended)
        for mended in floor.mended
    )


def advisories(
    servers: Mapping[str, str] | None = None, installed: Callable[[str], str | None] | None = None
) -> list[Advisory]:
    """One for each component with a known vulnerability: its version, the CVEs, and what to install.

    Args:
        servers: versions that somebody was told by the server itself.
        installed: tells a component's version, or `None`; by default this machine's.
    """
    tells = installed or _installed
    names = dict.fromkeys(floor.component for floor in FLOORS)
    found = {name: (servers or {}).get(name) or tells(name) for name in names}
    told = []
    for name, has in found.items():
        if has is None:
            continue
        open_floors = [
            floor for floor in FLOORS if floor.component == name and not is_mended(has, floor)
        ]
        noted = _changelog(name) if open_floors and installed is None else ""
        cves = [cve for floor in open_floors for cve in floor.cves if cve not in noted]
        if cves:
            newest = " or ".join(open_floors[-1].mended)
            told.append(
                Advisory(
                    f"{name} {has} is open to {', '.join(cves)}",
                    f"install {name} {newest}, or newer",
                )
            )
    return told


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _installed(name: str) -> str | None:
    if name in _SERVERS:
        return None
    if name not in _PROGRAMS:
        try:
            return version(name)
        except PackageNotFoundError:
            return None
    program, *arguments = _PROGRAMS[name]
    if shutil.which(program) is None:
        return None
    found = re.search(r"\d+\.\d+(?:\.\d+)?", _said(program, *arguments))
    return found[0] if found else None


def _changelog(name: str) -> str:
    """What the distribution says of the package that the program is from; nothing if it is from none."""
    where = shutil.which(_PROGRAMS[name][0]) if name in _PROGRAMS else None
    if where is None:
        return ""
    path = str(Path(where).resolve())
    if shutil.which("dpkg-query"):
        package = _said("dpkg-query", "--search", path).partition(":")[0]
        file = Path("/usr/share/doc", package, "changelog.Debian.gz")
        try:
            return gzip.decompress(file.read_bytes()).decode(errors="replace")
        except OSError:
            return ""
    return _said("rpm", "--query", "--changelog", "--file", path) if shutil.which("rpm") else ""


def _said(*command: str) -> str:
    try:
        return said(*command)
    except (OSError, subprocess.SubprocessError):
        return ""
