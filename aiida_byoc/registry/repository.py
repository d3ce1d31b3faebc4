"""A repository of a registry as a source of images: bounded in time and size, and gone on with where it broke off."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from aiida_byoc.agent.backoff import Backoff
from aiida_byoc.registry.client import RegistryClient
from aiida_byoc.registry.credentials import login
from aiida_byoc.runtimes.oci import MAX_MANIFEST_BYTES, Blob, ImageError, SourceUnavailable
from aiida_byoc.runtimes.reference import Reference

__all__ = ["Repository", "repository"]

_DOCUMENTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
_TRIES = 4
"""So often in a row without a byte, then the source counts as broken off."""


class Repository:
    """Gives manifests and blobs of one repository.

    Args:
        until: the moment (monotonic, in seconds) after which it gives nothing more.
    """

    def __init__(self, client: RegistryClient, reference: Reference, until: float) -> None:
        self._client, self._reference, self._until = client, reference, until

    def digest(self) -> str:
        """What the reference stands for now: its digest, else that of its tag.

        Raises:
            ImageError: there is no such tag.
        """
        if self._reference.digest is not None:
            return self._reference.digest
        content = self._document(self._reference.tag or "latest")
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def document(self, digest: str) -> bytes:
        """A manifest or an index; whoever asked compares digests."""
        return self._document(digest)

    def read(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """The blob from `offset` on, over as many requests as that takes.

        Raises:
            ImageError: the registry does not have it.
            SourceUnavailable: it gives nothing more for now, or time is up.
        """
        backoff, failures = Backoff(most=5.0), 0
        while offset < blob.size:
            broken = SourceUnavailable(f"{self._reference.host} broke off in {blob.digest}")
            try:
                for block in self._part(blob, offset):
                    offset, failures = offset + len(block), 0
                    backoff.succeeded()
                    yield block
                    self._check_time()
            except SourceUnavailable as error:
                broken = error
            if offset >= blob.size:
                return
            failures += 1
            if failures == _TRIES or time.monotonic() >= self._until:
                raise broken
            time.sleep(backoff.failed(broken.retry_after))

    def _document(self, name: str) -> bytes:
        content = b""
        with self._client.get(f"manifests/{name}", Accept=_DOCUMENTS) as answer:
            for block in answer.iter_raw():
                content += block
                if len(content) > MAX_MANIFEST_BYTES:
                    raise ImageError(
                        f"the manifest {name} has more than {MAX_MANIFEST_BYTES} bytes"
                    )
        self._check_time()
        return content

    def _part(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """One request's worth, never more than is wanted."""
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        with self._client.get(f"blobs/{blob.digest}", **wanted) as answer:
            begins = 0
            if answer.status_code == httpx.codes.PARTIAL_CONTENT:
                said = (
                    answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                )
                begins = int(said) if said.isdigit() else -1
                if begins != offset:
                    raise ImageError(f"{self._reference.host} sends another part of {blob.digest}")
            skip = offset - begins  # of a registry that knows no ranges
            for block in answer.iter_raw():
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))

    def _check_time(self) -> None:
        if time.monotonic() >= self._until:
            raise SourceUnavailable(f"{self._reference.host} is too slow; what it gave is kept")


@contextlib.contextmanager
def repository(
    reference: Reference, auth_file: Path | None, *, seconds: float = 3600
) -> Iterator[Repository]:
    """The repository of a reference, for at most so many seconds.

    Raises:
        AuthFileError: the file with the credentials cannot be used.
    """
    client = RegistryClient(reference, login(auth_file, reference))
    try:
        yield Repository(client, reference, time.monotonic() + seconds)
    finally:
        client.close()
