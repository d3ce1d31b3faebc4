"""The wheel that users install holds every file and every entry point: setuptools drops either in silence."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from tests.fences.house import PACKAGES, ROOT

LOAD = """
import sys
from importlib.metadata import distributions
from pathlib import Path

target = Path(sys.argv[1])
[ours] = [each for each in distributions(path=[str(target)]) if each.name == "aiida-byoc"]
for point in ours.entry_points:
    loaded = point.load()
    module = sys.modules[point.module]
    assert Path(module.__file__).is_relative_to(target), f"{point.module} came from {module.__file__}"
    assert callable(loaded), point
    print(f"{point.group}:{point.name}")
"""


def run(*argv: str, **environment: str) -> str:
    """Run a program in an empty place and return what it printed; its errors are shown if it fails."""
    result = subprocess.run(
        argv,
        cwd=environment.pop("cwd"),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{argv}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: a build leaves files beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "setup.cfg", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    built = tmp_path_factory.mktemp("built")
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(built),
        str(source),
        cwd=str(built),
    )
    [wheel] = built.iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel alone in a directory; its dependencies come from this environment."""
    target = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--no-deps",
        "--no-index",
    ]
    run(*pip, "--target", str(target), str(wheel), cwd=str(target))
    return target


@pytest.fixture(scope="module")
def distribution(installed) -> Distribution:
    [ours] = [each for each in distributions(path=[str(installed)]) if each.name == "aiida-byoc"]
    return ours


def declared() -> dict[str, dict[str, str]]:
    """The entry points of `setup.cfg`, by group."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return {
        group: dict(
            tuple(word.strip() for word in line.split("=", 1))
            for line in lines.strip().splitlines()
        )
        for group, lines in setup["options.entry_points"].items()
    }


def test_the_entry_points_of_the_wheel_are_those_of_setup_cfg(distribution):
    found: dict[str, dict[str, str]] = {}
    for point in distribution.entry_points:
        found.setdefault(point.group, {})[point.name] = point.value

    assert found == declared()
    assert set(found) == {
        "aiida.calculations",
        "aiida.workflows",
        "aiida.parsers",
        "aiida.schedulers",
        "aiida.storage",
        "aiida.brokers",
        "aiida.cmdline.data",
        "console_scripts",
    }


def test_every_entry_point_loads_from_the_wheel(installed, tmp_path):
    printed = run(
        sys.executable, "-c", LOAD, str(installed),
        cwd=str(tmp_path), PYTHONPATH=str(installed), AIIDA_PATH=str(tmp_path),
    )  # fmt: skip

    assert sorted(printed.split()) == sorted(
        f"{group}:{name}" for group, points in declared().items() for name in points
    )


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert packed == sources


def test_the_wheel_says_where_it_came_from(distribution):
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.metadata["Requires-Python"] == ">=3.11"
    assert "Framework :: AiiDA" in distribution.metadata.get_all("Classifier")


@pytest.mark.parametrize(
    ("group", "name", "words"),
    [
        ("aiida.calculations", "byoc.container", ["Run one container", "submission_id", "container"]),
        ("aiida.workflows", "byoc.job", ["command", "placement", "The image is missing"]),
    ],
)  # fmt: skip
def test_verdi_describes_the_process(group, name, words, installed, tmp_path):
    printed = run(
        sys.executable, "-m", "aiida", "plugin", "list", group, name,
        cwd=str(tmp_path), PYTHONPATH=str(installed), AIIDA_PATH=str(tmp_path),
    )  # fmt: skip

    assert [word for word in words if word not in printed] == []
