"""Which hosts are this very machine: no proxy reaches it, and only there may a password or key travel without TLS."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["is_loopback", "is_safe"]


def is_loopback(host: str) -> bool:
    """Whether a host name or address of a URL, brackets included, is the loopback of this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_safe(url: str) -> bool:
    """Whether what a URL leads to can be believed: TLS, or this machine; no password in it, no fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
