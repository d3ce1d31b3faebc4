"""Write the OpenAPI document: `python -m adapter.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import HttpUrl

from adapter.app import create_app
from adapter.settings import ConvexSettings, Settings

__all__ = ["openapi_text"]


def openapi_text() -> str:
    """The document of this version, the same on every machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as directory:
        # The document depends on no setting, but an application without a service key does not start.
        key_file = Path(directory, "service.pem")
        key_file.write_bytes(pem)
        convex = ConvexSettings(
            url=HttpUrl("https://convex.example"),
            service_issuer="https://adapter.example",
            service_key_file=key_file,
            key_id="document",
        )
        app = create_app(Settings(convex=convex, public_url=None))
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_text())
