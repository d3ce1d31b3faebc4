"""Where the keys that check a receipt come from: a file, or the adapter."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from aiida_byoc.contracts.enrolment import PublicKey
from aiida_byoc.contracts.receipt.verification import ReceiptError, public_keys

__all__ = ["TOKEN", "keys_from"]

TOKEN = "BYOC_TOKEN"  # noqa: S105
"""The environment variable with the reader's token for the adapter; everybody may read a command line."""

_SECONDS = 30.0
_MOST_BYTES = 64 * 1024
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def keys_from(source: str) -> list[PublicKey]:
    """The Ed25519 keys in a file, or at a URL: a JWK, or a JWK Set.

    Raises:
        ReceiptError: they cannot be had; the sentence names the source.
    """
    try:
        content = _fetched(source) if "://" in source else Path(source).read_bytes()
        return public_keys(content)
    except urllib.error.HTTPError as error:
        hint = f": set {TOKEN} to a token that may read jobs" if error.code in {401, 403} else ""
        raise ReceiptError(
            f"{source} cannot be fetched: the answer is {error.code}{hint}"
        ) from error
    except urllib.error.URLError as error:
        raise ReceiptError(f"{source} cannot be fetched: {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise ReceiptError(f"{source} cannot be read: {why}") from error
    except ReceiptError as error:
        raise ReceiptError(f"{source} {error}") from error


def _fetched(url: str) -> bytes:
    """What the URL answers; never over a wire that anybody can write to, nor from where it is sent on to."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ReceiptError("is no https URL, and keys from elsewhere prove nothing")
    token = os.environ.get(TOKEN)
    request = urllib.request.Request(url, headers=_headers(token))  # noqa: S310 - as looked at above
    opener = urllib.request.build_opener(_Here())
    with opener.open(request, timeout=_SECONDS) as answer:
        content: bytes = answer.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ReceiptError(f"holds more than {_MOST_BYTES} bytes")
    return content


def _headers(token: str | None) -> dict[str, str]:
    return {"Accept": "application/json"} | (
        {} if token is None else {"Authorization": f"Bearer {token}"}
    )


class _Here(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token is for this place alone."""

    def redirect_request(self, *_: object) -> None:
        return None
