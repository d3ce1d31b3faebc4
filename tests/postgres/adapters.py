"""An adapter of a test's own, and the node's client for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import HttpUrl

from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.node import NodeSettings

__all__ = ["client_of", "serving"]


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let it answer for as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_of(settings: NodeSettings, server: ThreadingHTTPServer) -> AdapterClient:
    """A client with a key of its own."""
    key = Ed25519PrivateKey.generate()
    settings.key_file.touch(mode=0o600)
    settings.key_file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    url = HttpUrl(f"http://127.0.0.1:{server.server_port}")
    return AdapterClient(settings.model_copy(update={"adapter_url": url}))
