"""The adapter of a lab."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import httpx

from lab import process
from lab.convex import Convex
from lab.credentials import (
    ADAPTER_AUDIENCE,
    CONVEX_AUDIENCE,
    SERVICE_KEY_ID,
    Credentials,
)
from lab.node import NODE_ID
from lab.paths import LabPaths

__all__ = ["address", "spawn", "start"]

START_SECONDS = 30.0


def start(
    paths: LabPaths,
    *,
    convex: Convex,
    credentials: Credentials,
    declare_node: bool = True,
    origins: Sequence[str] = (),
) -> tuple[str, process.Daemon]:
    """Write the adapter's settings, start it and wait until it is ready; return its URL and its process.

    Args:
        declare_node: whether the lab's node stands in the settings; else the product knows it.
        origins: those of pages that may read in browsers.

    Raises:
        LabError: it did not start; the message holds the end of its log.
    """
    port = paths.ports("adapter")[0]
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "audience": ADAPTER_AUDIENCE,
        "client_issuers": [
            {"issuer": issuer.iss, "jwks": issuer.jwks, "algorithms": ["ES256"]}
            for issuer in (credentials.product, credentials.commands)
        ],
        "nodes": {NODE_ID: _declared(credentials)} if declare_node else {},
        "convex": {
            "url": convex.url,
            "service_issuer": credentials.service.iss,
            "service_key_file": str(credentials.service_key_file),
            "key_id": SERVICE_KEY_ID,
            "audience": CONVEX_AUDIENCE,
        },
        "cors_origins": list(origins),
    }
    file = paths.root / "adapter.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings, indent=1))
    return f"http://127.0.0.1:{port}", spawn(paths)


def address(paths: LabPaths) -> str:
    """The URL at which the adapter of this lab will listen."""
    return f"http://127.0.0.1:{paths.ports('adapter')[0]}"


def spawn(paths: LabPaths, name: str = "adapter") -> process.Daemon:
    """Start the adapter on its settings (again), and wait until it is ready; under another name, a replica of it."""
    port = paths.ports(name)[0]
    daemon = process.spawn(
        paths,
        name,
        [sys.executable, "-m", "adapter"],
        env={
            "BYOC_ADAPTER_CONFIG": str(paths.root / "adapter.json"),
            "BYOC_ADAPTER_PORT": str(port),
        },
    )
    process.wait_until(
        lambda: _ready(f"http://127.0.0.1:{port}/readyz"),
        START_SECONDS,
        f"the {name} to be ready",
        needs=[daemon],
    )
    return daemon


def _declared(credentials: Credentials) -> dict[str, Any]:
    return {
        "jwks": credentials.node_jwks,
        "tenants": [tenant.tenant_id for tenant in credentials.tenants],
    }


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False
