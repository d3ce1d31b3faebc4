"""The product of a lab: the Convex functions of this repository, served from memory by Node."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "lab" / "convex_server" / "main.ts"
TSX = ROOT / "node_modules" / "tsx" / "dist" / "esm" / "index.mjs"


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Who signs tokens (ES256), and the public keys to check them by (RFC 7517, with `kid`)."""

    iss: str
    jwks: Mapping[str, Any]

    @property
    def jwks_uri(self) -> str:
        """The key set as a `data:` URI, the form in which a deployment needs no outbound fetch."""
        encoded = base64.b64encode(json.dumps(self.jwks).encode()).decode()
        return f"data:application/json;base64,{encoded}"


@dataclass(frozen=True, kw_only=True)
class Convex:
    """Where a deployment listens, and the key that may run its internal functions."""

    url: str
    site_url: str
    admin_key: str


@dataclass(frozen=True, kw_only=True)
class Commanding:
    """How the product is a client of the adapter: where that is, and who signs its tokens (a private ES256 JWK)."""

    adapter_url: str
    issuer: str
    key: Mapping[str, str]


def start(
    spawn: Callable[[str, Sequence[str], Mapping[str, str]], object],
    *,
    port: int,
    admin_key: str,
    product_issuer: Issuer,
    service_issuer: Issuer,
    signing_key: Mapping[str, str],
    commanding: Commanding | None = None,
) -> Convex:
    """Start the server; it is ready once `ready` says so.

    Args:
        spawn: starts a command under a name with variables added to its environment.
        port: a free TCP port of 127.0.0.1.
        admin_key: without colon, bar or space.
        product_issuer: signs the tokens of users.
        service_issuer: signs the tokens of the adapter; another than the product's.
        signing_key: the private key (ES256, a JWK) that the product signs commands with.
        commanding: without it no job can be submitted to the product.
    """
    # The keys reach the server by its environment: everybody may read a command line.
    environment = {
        "TSX_DISABLE_CACHE": "1",  # it would stay behind, outside the lab
        "CONVEX_SERVER_PORT": str(port),
        "CONVEX_SERVER_ADMIN_KEY": admin_key,
        "BYOC_PRODUCT_ISSUER": product_issuer.iss,
        "BYOC_PRODUCT_JWKS": product_issuer.jwks_uri,
        "BYOC_SERVICE_ISSUER": service_issuer.iss,
        "BYOC_SERVICE_JWKS": service_issuer.jwks_uri,
        "BYOC_SIGNING_KEY": json.dumps(dict(signing_key)),
    }
    if commanding is not None:
        environment |= {
            "BYOC_ADAPTER_URL": commanding.adapter_url,
            "BYOC_COMMAND_ISSUER": commanding.issuer,
            "BYOC_COMMAND_KEY": json.dumps(dict(commanding.key)),
        }
    # Not the `tsx` command, which puts a second process before the server.
    spawn("convex", ["node", "--import", TSX.as_uri(), str(SERVER)], environment)
    url = f"http://127.0.0.1:{port}"
    return Convex(url=url, site_url=f"{url}/http", admin_key=admin_key)


def ready(convex: Convex) -> bool:
    """Whether the deployment answers; to be polled."""
    try:
        return httpx.get(f"{convex.url}/version", timeout=2).is_success
    except httpx.TransportError:
        return False


def call(
    convex: Convex, kind: str, path: str, args: Mapping[str, Any], authorization: str | None = None
) -> Any:
    """Run a function and return its value.

    Args:
        kind: `query`, `mutation` or `action`.
        path: `module:function`.
        authorization: the header's value, by default that of the admin key.

    Raises:
        RuntimeError: the function failed; the message holds its answer.
        httpx.HTTPError: the request failed before it.
    """
    response = httpx.post(
        f"{convex.url}/api/{kind}",
        json={"path": path, "args": args, "format": "json"},
        headers={"Authorization": authorization or f"Convex {convex.admin_key}"},
        timeout=30,
    ).raise_for_status()
    answer = response.json()
    if answer["status"] != "success":
        raise RuntimeError(f"{path}: {answer}")
    return answer["value"]
