"""The direction of imports: what may know what, held by import-linter, which itself is held here."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fences.house import PACKAGES, ROOT

BLOCKED = (
    "aiida",
    "plumpy",
    "kiwipy",
    "fastapi",
    "starlette",
    "psycopg",
    "sqlalchemy",
    "httpx",
    "click",
)
PROBE = f"""
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import aiida_byoc.contracts
for module in pkgutil.walk_packages(aiida_byoc.contracts.__path__, "aiida_byoc.contracts."):
    importlib.import_module(module.name)
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & set({BLOCKED!r}), loaded
ours = sorted(name for name in sys.modules if name.partition(".")[0] in {PACKAGES!r})
print("\\n".join(ours))
"""
VIOLATIONS = [
    ("aiida_byoc/contracts/base.py", "import aiida.orm", "Contracts are pure"),
    ("aiida_byoc/contracts/base.py", "import httpx", "Contracts are pure"),
    ("aiida_byoc/events/outbox.py", "import adapter.app", "The plugin never imports the adapter"),
    (
        "adapter/channel.py",
        "from aiida_byoc.commands import ledger",
        "Of the plugin, the adapter imports the contracts alone",
    ),
    ("adapter/convex.py", "import psycopg", "The adapter knows neither AiiDA nor a database"),
    (
        "aiida_byoc/contracts/delivery.py",
        "from aiida_byoc.contracts.conformance import wire",
        "Nothing depends on the conformance kit",
    ),
    (
        "aiida_byoc/events/hooks.py",
        "import httpx",
        "Nothing that runs in a job, and no command, speaks HTTP",
    ),
    (
        "aiida_byoc/runtimes/sources.py",
        "from aiida_byoc.registry import repository",
        "Nothing that runs in a job, and no command, speaks HTTP",
    ),
    ("adapter/delivery.py", "import redis", "Nobody brings Redis or RQ back"),
]


def run(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    return subprocess.run(
        argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return run(str(program), "--no-cache", cwd=cwd)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_are_read_where_aiida_is_not_installed(tmp_path):
    result = run(sys.executable, "-c", PROBE, cwd=ROOT)

    assert result.returncode == 0, result.stderr
    loaded = result.stdout.split()
    assert len(loaded) > 10
    assert all(name == "aiida_byoc" or name.startswith("aiida_byoc.contracts") for name in loaded)


def test_the_probe_sees_an_absent_module():
    result = run(
        sys.executable, "-c", PROBE + "\nimport aiida_byoc.calculations.container", cwd=ROOT
    )

    assert result.returncode != 0
    assert "ModuleNotFoundError: No module named 'aiida" in result.stderr


def test_the_agent_holds_no_aiida():
    """It runs for ever beside processes that do, and starts at once."""
    probe = (
        "import sys, aiida_byoc.agent.supervisor\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('aiida', 'plumpy')])"
    )

    result = run(sys.executable, "-c", probe, cwd=ROOT)

    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_the_import_contracts_are_kept(copy):
    result = lint_imports(copy)

    assert result.returncode == 0, result.stdout
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(("module", "line", "contract"), VIOLATIONS)
def test_a_forbidden_import_breaks_its_contract(module, line, contract, copy):
    path = copy / module
    path.write_text(path.read_text().replace("annotations\n", f"annotations\n\n{line}\n", 1))

    result = lint_imports(copy)

    assert result.returncode != 0
    assert f"{contract} BROKEN" in result.stdout, result.stdout


def test_every_import_contract_is_tried():
    text = (ROOT / "pyproject.toml").read_text()

    names = {
        line.partition('"')[2].rstrip('"')
        for line in text.splitlines()
        if line.startswith("name = ")
    }
    assert {contract for _, _, contract in VIOLATIONS} == names - {"aiida-byoc"}


def test_the_package_root_gives_nothing_but_its_version():
    """A re-export here is a hole in every fence: `from aiida_byoc import …` names no module."""
    for package in PACKAGES:
        tree = ast.parse((ROOT / package / "__init__.py").read_text())
        imported = [
            node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert [
            ast.unparse(node)
            for node in imported
            if ast.unparse(node) != "from __future__ import annotations"
        ] == []
