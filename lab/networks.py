"""Two machines on one: the product in one network namespace, the node in another behind a firewall, a wire between.

Needs root, `ip` and `iptables`. Nothing that runs in them reaches any other network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NODE", "PRODUCT", "Networks", "networks"]

PRODUCT, NODE = "192.0.2.1", "192.0.2.2"
"""Their addresses on the wire, from TEST-NET-1 (RFC 5737)."""

_NAMED = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_WIRE = "wire"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Networks:
    """The two namespaces, by name, and what can be done to the wire between them."""

    product: str
    node: str

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """This thread, and what it starts, in one of them."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as before,
            (_NAMED / name).open("rb") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def close_to_the_outside(self) -> None:
        """Drop whatever comes to the node, unless it answers what the node began."""
        for rule in (
            ("-A", "INPUT", "-i", "lo", "-j", "ACCEPT"),
            ("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"),
            ("-P", "INPUT", "DROP"),
        ):
            _run("ip", "netns", "exec", self.node, "iptables", *rule)

    def open_to_the_outside(self) -> None:
        """Take the firewall away again."""
        _run("ip", "netns", "exec", self.node, "iptables", "-P", "INPUT", "ACCEPT")
        _run("ip", "netns", "exec", self.node, "iptables", "-F", "INPUT")

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Without the wire; packets are lost without a word, as they are when a line fails."""
        rule = ("OUTPUT", "-o", _WIRE, "-j", "DROP")
        for name in (self.product, self.node):
            _run("ip", "netns", "exec", name, "iptables", "-A", *rule)
        try:
            yield
        finally:
            for name in (self.product, self.node):
                _run("ip", "netns", "exec", name, "iptables", "-D", *rule)

    @contextlib.contextmanager
    def only_to(self, port: int) -> Iterator[None]:
        """With nothing that the node may reach but a port of the product's machine."""
        allowed = ("OUTPUT", "-o", _WIRE, "-p", "tcp", "--dport", str(port), "-j", "ACCEPT")
        answers = ("OUTPUT", "-o", _WIRE, "-j", "REJECT")
        for rule in (allowed, answers):
            _run("ip", "netns", "exec", self.node, "iptables", "-A", *rule)
        try:
            yield
        finally:
            for rule in (allowed, answers):
                _run("ip", "netns", "exec", self.node, "iptables", "-D", *rule)


@contextlib.contextmanager
def networks() -> Iterator[Networks]:
    """Two fresh namespaces; gone afterwards, with everything that listens in them."""
    mark = secrets.token_hex(4)
    pair = Networks(product=f"byoc-{mark}-product", node=f"byoc-{mark}-node")
    try:
        for name in (pair.product, pair.node):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        ends = ("netns", pair.product, "type", "veth", "peer", "name", _WIRE, "netns", pair.node)
        _run("ip", "link", "add", _WIRE, *ends)
        for name, address in ((pair.product, PRODUCT), (pair.node, NODE)):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", _WIRE)
            _run("ip", "-n", name, "link", "set", _WIRE, "up")
        yield pair
    finally:
        for name in (pair.product, pair.node):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": _PATH})
