"""A container's root with a shell and little else, made from this machine's own programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = ("sh", "cat", "ln", "mkfifo", "mkdir", "chmod", "sleep", "env")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("image") / "rootfs"
    for name in ("bin", "proc", "dev", "tmp", "work", "sys", "etc", "home"):
        (root / name).mkdir(parents=True)
    for name in ("passwd", "group"):
        (root / "etc" / name).touch()
    for program in PROGRAMS:
        found = shutil.which(program)
        assert found is not None
        shutil.copy(found, root / "bin" / program)
        needed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    return root
