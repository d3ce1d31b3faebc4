"""What a node stands on: its identity, its disks, and who else could reach its database and broker."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from aiida_byoc.agent.credential import fetched_token
from aiida_byoc.agent.keys import private_key
from aiida_byoc.agent.link import link
from aiida_byoc.asking import said, slurm_configuration
from aiida_byoc.commands.signatures import load_product_keys
from aiida_byoc.node import NodeSettings
from aiida_byoc.private_file import NotPrivate, read_private

__all__ = ["accounting", "disk", "exposure", "identity", "listening", "private", "rabbitmq"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LEAST_BYTES = 2 * 1024**3
_LEAST_PART = 0.02
_AMQP = 5672
_LISTEN = "0A"
"""Of a socket in /proc/net/tcp."""
_LISTENS = """
SELECT current_setting('listen_addresses'), current_setting('ssl') = 'on',
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)
"""


def identity(settings: NodeSettings) -> None:
    """Key and product keys can be used, and, of an enrolled node, the adapter takes the key.

    Raises:
        SettingsError, KeysError, AdapterUnavailable: what is not so, and what helps.
    """
    key = private_key(settings.key_file)
    if settings.product_keys_file is not None:
        load_product_keys(settings.product_keys_file)
    if settings.enrolled:
        with link(settings) as http:
            fetched_token(http, settings, key)


def disk(places: Iterable[Path]) -> str | None:
    """There is room where the node writes."""
    for place in places:
        there = next((each for each in (place, *place.parents) if each.exists()), place)
        usage = shutil.disk_usage(there)
        if usage.free < max(_LEAST_BYTES, usage.total * _LEAST_PART):
            return (
                f"{place} has {usage.free // 2**20} MiB left of {usage.total // 2**20}; make room"
                " (`verdi data byoc images list` names what is stored), or move it"
            )
        inodes = os.statvfs(there)
        if inodes.f_files and inodes.f_favail < inodes.f_files * _LEAST_PART:
            return f"{place} has {inodes.f_favail} of {inodes.f_files} inodes left; make room"
    return None


def exposure(connection: psycopg.Connection) -> str | None:
    """The database listens to this machine alone, or speaks TLS."""
    row = connection.execute(_LISTENS).fetchone()
    listens, offers_tls, has_tls = row or ("", False, False)
    others = [name.strip() for name in listens.split(",") if not _is_here(name.strip())]
    if not _is_here(connection.info.host) and not has_tls:
        return (
            f"the connection to PostgreSQL on {connection.info.host} is not encrypted, and carries its password and"
            " all jobs; set ssl = on in postgresql.conf, and PGSSLMODE=require for agent and daemon"
        )
    if others and not offers_tls:
        return (
            f"PostgreSQL listens on {', '.join(others)} without TLS; set listen_addresses = 'localhost', or ssl = on,"
            " in postgresql.conf"
        )
    return None


def rabbitmq(config: Mapping[str, Any]) -> str | None:
    """RabbitMQ listens to this machine alone, or speaks TLS: whoever can send it a task runs code as this user.

    Args:
        config: what AiiDA's profile says of its broker.
    """
    if config.get("broker_protocol") == "amqps":
        return None
    host = str(config.get("broker_host", "localhost"))
    if not _is_here(host):
        return (
            f"the connection to RabbitMQ on {host} is not encrypted; use the protocol amqps"
            " (`verdi profile configure-broker core.rabbitmq`)"
        )
    port = int(config.get("broker_port", _AMQP))
    if others := sorted({str(each) for each in listening(port) if not each.is_loopback}):
        return (
            f"RabbitMQ listens on {', '.join(others)} without TLS; set listeners.tcp.1 = 127.0.0.1:{port} in"
            " rabbitmq.conf, and start it anew"
        )
    return None


def listening(port: int) -> Iterator[Address]:
    """Addresses of this machine at which somebody waits for TCP connections to a port."""
    for family in ("tcp", "tcp6"):
        try:
            _, *lines = Path("/proc/net", family).read_text().splitlines()
        except OSError:
            continue
        for words in map(str.split, lines):
            local, number = words[1].split(":")
            if words[3] == _LISTEN and int(number, 16) == port:
                yield _address(local)


def _address(text: str) -> Address:
    """An address as the kernel writes it: words of 32 bits, each with its bytes in this machine's order."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    found = ipaddress.ip_address(packed)
    return getattr(found, "ipv4_mapped", None) or found


def _is_here(host: str) -> bool:
    """Whether a host is this machine by loopback or by a socket file."""
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def accounting() -> str | None:
    """Slurm's accounting answers, where the site has one; it may be absent."""
    shown = slurm_configuration()
    kind = re.search(r"^AccountingStorageType\s*=\s*(\S+)", shown, re.MULTILINE)
    if kind is None or kind[1] in {"(null)", "accounting_storage/none"}:
        return None
    try:
        said("sacct", "--noheader", "--allocations", "--starttime=now-1minute")
    except subprocess.TimeoutExpired:
        reason = "no answer"
    except subprocess.CalledProcessError as error:
        reason = (str(error.stderr).strip().splitlines() or ["no answer"])[-1]
    else:
        return None
    return (
        f"Slurm keeps accounts ({kind[1]}), but `sacct` fails ({reason[:200]}); jobs that the controller has"
        " forgotten stay held longer: start slurmdbd"
    )


def private(path: Path | None, what: str) -> str | None:
    """A file with a secret is its owner's alone, if it is there."""
    if path is None or not path.exists():
        return None
    try:
        read_private(path)
    except NotPrivate as error:
        return f"{what} {path} {error}"
    except OSError as error:
        return f"{what} {path} cannot be read: {error.strerror}"
    return None
