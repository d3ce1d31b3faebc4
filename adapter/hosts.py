"""Which hosts are this very machine: no proxy reaches it, and only there may a password or key travel without TLS."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

__all__ = ["is_loopback", "is_origin", "is_safe"]

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?"
)
_PORTS = {"https": "443", "http": "80"}


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


def is_origin(text: str) -> bool:
    """Whether a text is the origin of a page that can be believed, to the letter that browsers write it in."""
    match = _ORIGIN.fullmatch(text)
    return match is not None and is_safe(text) and match["port"] != _PORTS[match["scheme"]]
