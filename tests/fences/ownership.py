"""What nobody may bring back, and who may own business state: each rule says where it is broken, below any root."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["RULES"]

BANNED = re.compile(
    r"(?:^|[-_.@/[])(?:(?:aio|fake|hi|io|node-)?redis|rq|bullmq|bee-queue|valkey|keydb)(?:$|[-_.[\]])",
    re.IGNORECASE,
)
"""Redis and RQ by whatever name: clients, servers that speak its protocol, queues that stand on it."""

_IMPORTED = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)["']([^"']+)["']""")
_CODE = ("aiida_byoc", "adapter", "lab", "benchmarks", "convex", "web", "tests")
_NOT_OURS = {"node_modules", "__pycache__", "_generated", "dist", "build"}
_STORES = frozenset({
    *("aiosqlite", "alembic", "asyncpg", "boto3", "databases", "dbm", "diskcache", "duckdb", "lmdb", "marshal"),
    *("motor", "mysql", "peewee", "pickle", "plyvel", "psycopg", "psycopg2", "pymongo", "pymysql", "shelve"),
    *("sqlalchemy", "sqlite3", "sqlmodel", "tempfile", "tinydb", "tortoise", "zodb"),
})  # fmt: skip
"""Modules with which the adapter would keep something."""

_WRITING_CALLS = frozenset({
    *("write_text", "write_bytes", "mkdir", "makedirs", "mkstemp", "symlink_to", "hardlink_to", "rename"),
    *("copyfile", "copytree", "move"),
})  # fmt: skip
_NO_FUNCTIONS_OF_A_PRODUCT = re.compile(
    r"^(?:node:)?(?:fs|fs/promises|child_process|worker_threads|net|cluster|sqlite|os|path)$"
    r"|^(?:better-sqlite3|sqlite3|pg|postgres|mysql2?|mongodb|mongoose|knex|typeorm|level|lowdb|prisma|@prisma/client)$"
)
"""What Convex functions need only to keep state beside Convex, or to run what a node runs."""

_OFFLINE = frozenset({"adapter/openapi.py"})
"""Programs of the adapter that are run by hand: this one writes a key for one moment."""


def locked_packages(root: Path) -> Iterator[str]:
    """Redis or RQ, directly or by way of others: in the locks, and in what is declared."""
    names = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", _text(root / "requirements.lock"), re.MULTILINE
    )
    names += json.loads(_text(root / "package-lock.json") or "{}").get("packages", {})
    package = json.loads(_text(root / "package.json") or "{}")
    names += [*package.get("dependencies", {}), *package.get("devDependencies", {})]
    project = tomllib.loads(_text(root / "pyproject.toml")).get("project", {})
    groups = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
    names += [re.split(r"[<>=!~; ]", each)[0] for group in groups for each in group]
    yield from (f"{name} is a dependency" for name in names if BANNED.search(name))


def debian_packages(root: Path) -> Iterator[str]:
    """Redis among what `lab/bootstrap.sh`, a container file or a unit installs or starts."""
    places = [root / "lab" / "bootstrap.sh", *(root / "docs" / "install").rglob("*")]
    for path in places:
        if path.suffix == ".md":
            continue
        for word in re.findall(r"[\w.@/-]+", _text(path)):
            if BANNED.search(word):
                yield f"{path.relative_to(root)} names {word}"


def python_imports(root: Path) -> Iterator[str]:
    """Redis or RQ, imported by any of our Python."""
    for path in _files(root, *_CODE, ending=".py"):
        for name in _imports(path):
            if BANNED.search(name.partition(".")[0]):
                yield f"{path.relative_to(root)} imports {name}"


def typescript_imports(root: Path) -> Iterator[str]:
    """Redis or what stands on it, imported by any of our TypeScript."""
    for path in _files(root, *_CODE, ending=(".ts", ".tsx", ".js", ".mjs")):
        for name in _IMPORTED.findall(_text(path)):
            if BANNED.search(name):
                yield f"{path.relative_to(root)} imports {name}"


def the_adapter_keeps_nothing(root: Path) -> Iterator[str]:
    """A database, a store or a file that the adapter writes would be a second owner of business state."""
    for path in _files(root, "adapter", ending=".py"):
        where = str(path.relative_to(root))
        if where in _OFFLINE:
            continue
        for name in _imports(path):
            if name.partition(".")[0] in _STORES:
                yield f"{where} imports {name}"
        for node in ast.walk(ast.parse(_text(path))):
            if isinstance(node, ast.Call) and _writes(node):
                yield f"{where}:{node.lineno} writes a file"


def the_product_keeps_to_convex(root: Path) -> Iterator[str]:
    """A file, a process or a database of its own would be a second owner beside Convex."""
    for path in _files(root, "convex", ending=(".ts", ".tsx", ".js", ".mjs")):
        for name in _IMPORTED.findall(_text(path)):
            if _NO_FUNCTIONS_OF_A_PRODUCT.match(name):
                yield f"{path.relative_to(root)} imports {name}"


def the_node_does_not_write_the_product(root: Path) -> Iterator[str]:
    """Execution speaks to the adapter alone: a node that called Convex would own projections."""
    for path in _files(root, "aiida_byoc", ending=".py"):
        for name in _imports(path):
            if name.partition(".")[0] == "convex":
                yield f"{path.relative_to(root)} imports {name}"
        for node in ast.walk(ast.parse(_text(path))):
            if isinstance(node, ast.Constant) and str(node.value).startswith(
                ("/api/mutation", "/api/query", "/api/action")
            ):
                yield f"{path.relative_to(root)}:{node.lineno} calls Convex"


RULES = (
    locked_packages,
    debian_packages,
    python_imports,
    typescript_imports,
    the_adapter_keeps_nothing,
    the_product_keeps_to_convex,
    the_node_does_not_write_the_product,
)


def _files(root: Path, *folders: str, ending: str | tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            ours = not _NOT_OURS & set(path.relative_to(root).parts)
            if ours and path.is_file() and path.name.endswith(ending):
                yield path


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "__import__"}:
            yield from (str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))


def _writes(call: ast.Call) -> bool:
    name = _name(call.func)
    if name in _WRITING_CALLS:
        return True
    if name != "open":
        return False
    modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    said = [str(each.value) for each in modes if isinstance(each, ast.Constant)]
    return any(re.fullmatch(r"[rbtU]*[wax+][wax+bt]*", mode) for mode in said)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
