"""A lab keeps to its directory, and says where it could not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lab.paths import LONGEST_RUN_DIRECTORY, PORTS, LabPaths


def test_a_later_process_finds_the_same_ports(paths: LabPaths) -> None:
    """Ports are recorded in the lab directory."""
    block = paths.ports("slurm", 3)

    assert LabPaths(paths.root).ports("slurm", 3) == block
    assert len(block) == 3


def test_labs_side_by_side_get_different_ports(
    paths: LabPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port is taken from the moment it is allotted, before anything listens."""
    monkeypatch.setattr("lab.paths.PORTS", range(PORTS.stop, PORTS.stop + 12))  # no other lab's
    other = LabPaths(tmp_path / "other")

    assert set(paths.ports("a", 3)).isdisjoint(other.ports("a", 3))
    with pytest.raises(RuntimeError, match="free TCP ports"):
        other.ports("b", 7)


def test_a_port_that_somebody_listens_on_is_not_allotted(
    paths: LabPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator looks before it gives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr("lab.paths.PORTS", range(taken, taken + 2))

        with pytest.raises(RuntimeError, match="free TCP ports"):
            paths.ports("a")


def test_a_deep_lab_puts_its_sockets_at_a_short_path(tmp_path: Path) -> None:
    """A socket's path is limited, a project's is not; what was borrowed is given back."""
    deep = LabPaths(tmp_path / ("d" * 100) / "lab")
    run = deep.run

    assert len(bytes(run)) <= LONGEST_RUN_DIRECTORY
    assert LabPaths(deep.root).run == run
    assert run.stat().st_mode & 0o066 == 0

    deep.discard()

    assert not run.exists()
    assert not deep.root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a service user")
def test_a_lab_below_a_closed_directory_puts_service_data_elsewhere(tmp_path: Path) -> None:
    """The service user owns its directory and can reach it."""
    tmp_path.chmod(0o700)
    closed = LabPaths(tmp_path / "lab")
    data = closed.service_directory("postgres")

    assert not data.is_relative_to(closed.root)
    assert data.owner() == closed.service_user
    assert LabPaths(closed.root).service_directory("postgres") == data

    closed.discard()

    assert not data.exists()


def test_a_directory_with_other_content_is_refused(tmp_path: Path) -> None:
    """`discard` removes the lab directory, so it must never have been anything else."""
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(FileExistsError, match="neither empty nor a lab"):
        LabPaths(tmp_path)
