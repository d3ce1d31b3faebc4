"""Fetching a file by HTTPS on a tenant's word: from hosts that the node's owner allows, and from nowhere else.

A name is resolved once; its address is checked and then asked, so that a name server which answers differently the next
time gains nothing. Redirects are followed by the same rules. No proxy is used: it would resolve names by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator

import httpx

from aiida_byoc import __version__
from aiida_byoc.commands.data import Data

__all__ = ["NotNow", "Unfetchable", "host_of", "opened"]

_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5
_TRY_AGAIN = {408, 425, 429}
_MOST_ADDRESSES = 4
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_GRACE_SECONDS = 60.0
_LEAST_BYTES_PER_SECOND = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Unfetchable(Exception):
    """The file cannot be had in this way; trying again does not help. The message is for the job's owner."""


class NotNow(Exception):
    """The file cannot be had for now; trying again can help.

    Attributes:
        retry_after: seconds that the host asked us to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


def host_of(url: str) -> str:
    """What may be told of a URL: it may hold a secret in its query."""
    return httpx.URL(url).netloc.decode("ascii")


@contextlib.contextmanager
def opened(url: str, rules: Data) -> Iterator[Iterator[bytes]]:
    """The content of a file, in pieces, as it comes.

    Raises:
        Unfetchable: the rules, or the host, do not allow it.
        NotNow: the host, or the network, failed.
    """
    with (
        _mapped_errors(),
        httpx.Client(verify=_authorities(rules), timeout=_TIMEOUT, trust_env=False) as client,
    ):
        response = _answer(client, httpx.URL(url), rules)
        try:
            _check(response, rules)
            yield _paced(response.iter_raw())
        finally:
            response.close()


@contextlib.contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise NotNow(str(error) or type(error).__name__) from error
    except httpx.InvalidURL as error:
        raise Unfetchable("it was redirected to an address that cannot be read") from error


def _authorities(rules: Data) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if rules.ca_file is not None:
        context.load_verify_locations(rules.ca_file)
    return context


def _answer(client: httpx.Client, url: httpx.URL, rules: Data) -> httpx.Response:
    """The first answer that is no redirect."""
    for _ in range(_MOST_REDIRECTS + 1):
        response = _ask(client, url, rules)
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        url = url.join(response.headers.get("Location", ""))
    raise Unfetchable(f"it was redirected more than {_MOST_REDIRECTS} times")


def _ask(client: httpx.Client, url: httpx.URL, rules: Data) -> httpx.Response:
    """Ask the address that was checked, by the name that was asked for."""
    failure: httpx.HTTPError | None = None
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Accept-Encoding": "identity",
        "User-Agent": f"aiida-byoc-agent/{__version__}",
    }
    for address in _addresses(url, rules)[:_MOST_ADDRESSES]:
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            headers=headers,
            extensions={"sni_hostname": url.host},
        )
        try:
            return client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
    raise failure or NotNow(f"{url.host} has no address")


def _addresses(url: httpx.URL, rules: Data) -> list[str]:
    """The addresses of a URL's host, all of which may be asked."""
    if url.scheme != "https" or url.userinfo:
        raise Unfetchable("it was redirected to an address that is not plain HTTPS")
    port = url.port or 443
    admitted = rules.admits(url.host, port)
    if admitted is None:
        raise Unfetchable(f"the node's policy does not allow the host {url.host}:{port}")
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotNow(f"the name {url.host} cannot be resolved") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if admitted == "public" and not all(_is_public(each) for each in addresses):
        raise Unfetchable(f"the host {url.host} has an address that is not public")
    return addresses


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or [None, None])[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast


def _check(response: httpx.Response, rules: Data) -> None:
    status = response.status_code
    if status in _TRY_AGAIN or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise NotNow(f"it was answered HTTP {status}", float(after) if after.isdigit() else None)
    if status != 200:
        raise Unfetchable(f"it was answered HTTP {status}")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > rules.max_input_bytes:
        raise Unfetchable(
            f"it has {length} bytes, and the node's policy allows {rules.max_input_bytes}"
        )


def _paced(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Do not wait for ever for a host that sends a little now and then."""
    began, size = time.monotonic(), 0
    for block in blocks:
        yield block
        size += len(block)
        seconds = time.monotonic() - began - _GRACE_SECONDS
        if seconds > 0 and size < seconds * _LEAST_BYTES_PER_SECOND:
            raise NotNow("it came too slowly")
