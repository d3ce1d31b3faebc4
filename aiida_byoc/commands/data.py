"""What a node's owner allows of data: `[data]` in `policy.toml`.

What counts while a job runs is kept with it (`Caps`), so a later change of the policy changes no accepted job. Which
hosts may be asked is the agent's business, and looked up whenever it asks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.contracts.commands import (
    CONTAINED,
    ArrayWorkload,
    PathInput,
    UrlInput,
    WorkchainWorkload,
)
from aiida_byoc.contracts.files import AbsolutePath
from aiida_byoc.contracts.problems import FieldError

__all__ = ["Caps", "Data", "address"]

_MIB, _GIB = 2**20, 2**30
_HTTPS = 443
_NAME = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"


def _has_no_spelling(path: str) -> str:
    if path.endswith("/"):
        raise ValueError("must not end with '/'")
    return path


Host = Annotated[str, StringConstraints(pattern=rf"^(\*\.)?{_NAME}(:[1-9][0-9]{{0,4}})?$")]
"""A host by its name, `*.` before it for all below it; with a port, or 443."""

HostAndPort = Annotated[str, StringConstraints(pattern=rf"^{_NAME}:[1-9][0-9]{{0,4}}$")]


class Caps(Table):
    """The limits of one job's data."""

    paths: list[Annotated[AbsolutePath, AfterValidator(_has_no_spelling)]] = []
    """Directories, shared with the compute nodes, whose content every job of every tenant may read."""
    max_log_bytes: int = Field(ge=0, default=64 * _MIB)
    """Of stdout and of stderr, each. Beyond it only the last 64 KiB are kept."""
    max_outputs: int = Field(ge=0, le=10_000, default=1000)
    """How many files a job may declare, by whatever patterns."""
    max_output_bytes: int = Field(ge=0, default=64 * _GIB)
    """Of one file."""
    max_outputs_bytes: int = Field(ge=0, default=256 * _GIB)
    """Of all files of one job."""
    keep_in_place_above_bytes: int = Field(ge=0, default=256 * _MIB)
    """A larger file stays in the job's directory; AiiDA knows where it is, and has no copy."""


class Data(Caps):
    """The owner's word on data.

    Attributes:
        hosts: where the node may fetch inputs from; their addresses must be public.
        private_hosts: the same, of any address: stores of the site itself.
        ca_file: certificates of authorities that count for them besides the machine's own (PEM).
        max_input_bytes: of one fetched file.
        keep_fetched_days: a fetched file that no job has wanted for so long is removed.
    """

    hosts: list[Host] = []
    private_hosts: list[HostAndPort] = []
    ca_file: AbsolutePath | None = None
    max_input_bytes: int = Field(ge=0, default=16 * _GIB)
    keep_fetched_days: int = Field(ge=1, default=30)

    def caps(self) -> Caps:
        """What a job that is accepted now is held to."""
        return Caps(**{name: getattr(self, name) for name in Caps.model_fields})

    def admits(self, host: str, port: int) -> Literal["public", "private"] | None:
        """Which addresses of a host may be asked: its public ones, any, or none."""
        if f"{host}:{port}" in self.private_hosts:
            return "private"
        return "public" if any(_means(entry, host, port) for entry in self.hosts) else None

    def refusals(self, workload: CONTAINED | WorkchainWorkload) -> Iterator[FieldError]:
        """Inputs of a container that are out of the owner's bounds."""
        files = workload.inputs if isinstance(workload, CONTAINED) else ()
        if isinstance(workload, ArrayWorkload) and (table := workload.tasks.file):
            yield from self._not_admitted("workload.tasks.file.url", table.url)
        for index, file in enumerate(files):
            field = f"workload.inputs.{index}"
            if isinstance(file, PathInput) and not self._has(file.path):
                message = "is not below a directory that the node's policy lets jobs read"
                yield _refusal(f"{field}.path", message, "a path below", self.paths)
            if isinstance(file, UrlInput):
                yield from self._not_admitted(f"{field}.url", file.url)

    def _not_admitted(self, field: str, url: str) -> Iterator[FieldError]:
        if not self.admits(*address(url)):
            message = "names a host that the node's policy does not allow"
            yield _refusal(field, message, "a host among", [*self.hosts, *self.private_hosts])

    def _has(self, path: str) -> bool:
        return any(f"{path}/".startswith(f"{root}/") for root in self.paths)


def address(url: str) -> tuple[str, int]:
    """Host and port of an HTTPS URL in the form of the contract."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _HTTPS


def _means(entry: str, host: str, port: int) -> bool:
    name, _, number = entry.partition(":")
    if port != int(number or _HTTPS):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _refusal(field: str, message: str, use: str, known: list[str]) -> FieldError:
    names = ", ".join(sorted(known)[:20])
    remedy = f"use {use}: {names}" if names else "ask the node's owner; there is none yet"
    return FieldError(field=field, message=message, remedy=remedy)
