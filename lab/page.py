"""The page of a lab: `web/`, built once per content, and served with a `config.json` that knows this lab.

The address holds a secret, for the configuration holds the tokens that the page offers to sign in with.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from lab import process
from lab.paths import LabPaths
from lab.process import LabError

__all__ = ["build", "building", "origin", "start"]

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "web"
CACHE = ROOT / ".cache" / "page"
VITE = ROOT / "node_modules" / "vite" / "bin" / "vite.js"
BUILD_SECONDS = 300.0
START_SECONDS = 20.0

# What the page is made of beside its own source: contracts, the names of functions, and its libraries.
ALSO = ("convex", "docs/contracts/schemas", "package-lock.json", "tsconfig.json")
MADE = {"dist", "node_modules"}


def origin(paths: LabPaths) -> str:
    """The origin of the lab's page, as browsers write it."""
    return f"http://127.0.0.1:{paths.ports('page')[0]}"


@contextlib.contextmanager
def building(source: Path = SOURCE) -> Iterator[Future[Path] | None]:
    """Build in the background; the result is the directory, or None in a repository without a page."""
    if not (source / "index.html").exists():
        yield None
        return
    with ThreadPoolExecutor(1, "page") as pool:
        yield pool.submit(build, source)


def build(source: Path = SOURCE, cache: Path = CACHE) -> Path:
    """Return the built page; what was built from the same content is taken from the cache.

    Raises:
        LabError: it could not be built; the message says why.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # labs that start side by side build once
        kept = cache / _digest(source)
        if kept.exists():
            return kept
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _vite(source, Path(scratch) / "page")
            for former in cache.iterdir():
                if former.is_dir() and former != Path(scratch):
                    shutil.rmtree(former)
            (Path(scratch) / "page").rename(kept)
    return kept


def start(
    paths: LabPaths,
    directory: Path,
    *,
    convex_url: str,
    adapter_url: str,
    tenants: list[dict[str, Any]],
) -> tuple[str, process.Daemon]:
    """Serve the built page; return its address, which is a secret, and its process.

    Args:
        tenants: who the page offers to sign in as: `tenant_id`, `user_id` and `token` of each.

    Raises:
        LabError: it did not start.
    """
    key = secrets.token_urlsafe(16)
    config = {"convex_url": convex_url, "adapter_url": adapter_url, "tenants": tenants}
    served = {
        "port": paths.ports("page")[0],
        "key": key,
        "directory": str(directory),
        "config": config,
    }
    # By the environment: everybody may read a command line.
    daemon = process.spawn(
        paths,
        "page",
        [sys.executable, "-m", "lab.page_server"],
        env={"BYOC_LAB_PAGE": json.dumps(served), "PYTHONPATH": str(ROOT)},
    )
    url = f"{origin(paths)}/{key}/"
    process.wait_until(
        lambda: _answers(url), START_SECONDS, "the page to be served", needs=[daemon]
    )
    return url, daemon


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(_inputs(source)):
        digest.update(f"{file}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _inputs(source: Path) -> Iterator[Path]:
    for place in (source, *(ROOT / name for name in ALSO)):
        if place.is_file():
            yield place
        for directory, below, files in os.walk(place):
            below[:] = [name for name in below if name not in MADE]
            yield from (Path(directory) / name for name in files)


def _vite(source: Path, out: Path) -> None:
    command: list[str | Path] = ["node", VITE, "build", "--outDir", out, "--emptyOutDir"]
    if (source / "vite.config.ts").exists():
        command += ["--config", source / "vite.config.ts"]
    outcome = subprocess.run(
        [*command, source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if outcome.returncode != 0:
        raise LabError(f"the page could not be built:\n{outcome.stdout}{outcome.stderr}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
