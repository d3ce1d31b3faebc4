"""The units that we give away are what systemd understands, and closed as far as a node allows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "docs" / "install" / "systemd").glob("*.service"))
MOST_EXPOSURE = 25
"""Of 100, as `systemd-analyze security` counts: what is left is the network, the user and the shared directories."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit for a profile `main`, with a program that is on this machine."""
    found: Path = request.param
    file = tmp_path / found.name.replace("@", "@main")
    program = re.compile(r"/opt/byoc/bin/[\w-]+")
    file.write_text(program.sub(sys.executable, found.read_text()))
    return file


def test_there_are_units_for_adapter_agent_and_daemon() -> None:
    names = [unit.name for unit in UNITS]

    assert names == ["byoc-adapter.service", "byoc-agent@.service", "byoc-daemon@.service"]


def test_systemd_never_gives_up(unit: Path) -> None:
    """By default it would after five starts within ten seconds."""
    before_service, _, service = unit.read_text().partition("[Service]")

    assert "\nStartLimitIntervalSec=0\n" in before_service
    assert "\nRestart=always\n" in service


@needs_systemd
def test_systemd_understands_each_line(unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, unit.name in result.stderr) == (0, False), result.stderr


@needs_systemd
def test_little_is_left_open(unit: Path) -> None:
    result = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={MOST_EXPOSURE}", str(unit)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in result.stderr:  # before systemd 250
        pytest.skip("this systemd-analyze cannot examine a file")

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_adapter_reads_nothing_but_what_systemd_hands_it() -> None:
    """Its user is nobody's, and the files may be root's alone."""
    [text] = [unit.read_text() for unit in UNITS if unit.name == "byoc-adapter.service"]

    handed = set(re.findall(r"^LoadCredential=([\w.]+):/etc/byoc/\1$", text, re.MULTILINE))
    read = re.findall(r"^Environment=BYOC_ADAPTER_\w+=(.*)$", text, re.MULTILINE)
    assert handed == {"adapter.toml", "service.pem"}
    assert sorted(read) == [f"%d/{name}" for name in sorted(handed)]


def test_what_a_node_writes_to_is_named_in_the_page() -> None:
    page = (UNITS[0].parents[1] / "node.md").read_text()

    for unit in UNITS[1:]:
        (places,) = re.findall(r"^ReadWritePaths=(.*)$", unit.read_text(), re.MULTILINE)
        assert all(place in page for place in places.split())
        assert unit.name in page
