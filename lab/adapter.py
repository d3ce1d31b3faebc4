"""The adapter of a lab."""

from __future__ import annotations

import json
import sys

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

__all__ = ["spawn", "start"]

START_SECONDS = 30.0


def start(
    paths: LabPaths, *, convex: Convex, credentials: Credentials
) -> tuple[str, process.Daemon]:
    """Write the adapter's settings, start it and wait until it is ready; return its URL and its process.

    Raises:
        LabError: it did not start; the message holds the end of its log.
    """
    port = paths.ports("adapter")[0]
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "audience": ADAPTER_AUDIENCE,
        "client_issuers": [
            {
                "issuer": credentials.product.iss,
                "jwks": credentials.product.jwks,
                "algorithms": ["ES256"],
            }
        ],
        "nodes": {
            NODE_ID: {
                "jwks": credentials.node_jwks,
                "tenants": [tenant.tenant_id for tenant in credentials.tenants],
            }
        },
        "convex": {
            "url": convex.url,
            "service_issuer": credentials.service.iss,
            "service_key_file": str(credentials.service_key_file),
            "key_id": SERVICE_KEY_ID,
            "audience": CONVEX_AUDIENCE,
        },
    }
    file = paths.root / "adapter.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings, indent=1))
    return f"http://127.0.0.1:{port}", spawn(paths)


def spawn(paths: LabPaths) -> process.Daemon:
    """Start the adapter on its settings (again), and wait until it is ready."""
    daemon = process.spawn(
        paths,
        "adapter",
        [sys.executable, "-m", "adapter"],
        env={"BYOC_ADAPTER_CONFIG": str(paths.root / "adapter.json")},
    )
    port = paths.ports("adapter")[0]
    process.wait_until(
        lambda: _ready(f"http://127.0.0.1:{port}/readyz"),
        START_SECONDS,
        "the adapter to be ready",
        needs=[daemon],
    )
    return daemon


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False
