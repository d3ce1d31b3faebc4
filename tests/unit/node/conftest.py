"""A container's root with a shell and little else, made from this machine's own programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiida_byoc.agent.keys import made_key, public_key
from aiida_byoc.node import NodeSettings
from tests.node_registry import Registry, node_registry

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


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """An adapter that knows nodes by their enrolment."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with node_registry() as registry:
        yield registry


@pytest.fixture
def enrolled(tmp_path: Path, registry: Registry) -> NodeSettings:
    """The settings of a node whose key the registry knows."""
    settings = NodeSettings.model_validate(
        {
            "node_id": registry.node_id,
            "adapter_url": registry.url,
            "enrolled": True,
            "key_file": tmp_path / "node.pem",
            "policy_file": tmp_path / "policy.toml",
            "image_store": tmp_path,
            "code": "byoc@slurm",
        }
    )
    public = public_key(made_key(settings.key_file))
    registry.keys[public.key_id] = public.model_dump()
    return settings
