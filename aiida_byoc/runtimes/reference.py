"""Names of images at registries: `host[:port]/repository[:tag][@sha256:…]`, always in full.

Without a host a name means something else to every tool, so it is refused here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aiida_byoc.runtimes.oci import ImageError, hex_of

__all__ = ["Reference"]

_HOST = (
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?"
)
_PATH = r"(?P<repository>[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*)"
_TAG = r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
_REFERENCE = re.compile(rf"{_HOST}/{_PATH}{_TAG}(?:@(?P<digest>.+))?")
_DOCKER_HUB = "docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image, or a repository of images, at a registry.

    Attributes:
        host: with its port, as it is written.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; raise `ImageError` with what is wrong about it."""
        found = _REFERENCE.fullmatch(text)
        if found is None or not _is_host(found["host"], found["port"]):
            raise ImageError(
                f"{text!r} is no full reference; write host/repository:tag or host/repository@sha256:…,"
                " of Docker Hub docker.io/library/…"
            )
        if found["digest"] is not None:
            hex_of(found["digest"])
        host, repository = found["host"] + (found["port"] or ""), found["repository"]
        if host == _DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(host=host, repository=repository, tag=found["tag"], digest=found["digest"])

    @property
    def name(self) -> str:
        """Of the repository: what `[images."…"]` in the policy is called."""
        return f"{self.host}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where HTTP without TLS is nobody's to read."""
        host = re.sub(r":[0-9]+$", "", self.host).strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _is_host(name: str, port: str | None) -> bool:
    """A first part without dot or port is a directory of some default registry; `localhost` is none."""
    return "." in name or name.startswith("[") or port is not None or name == "localhost"
