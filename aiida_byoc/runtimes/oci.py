"""Manifests and indexes in the words of OCI (image-spec 1.1) and of Docker's image manifest version 2, schema 2.

What a source says is not trusted: a document has the digest it was asked for by, or it is refused.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "MAX_MANIFEST_BYTES",
    "Blob",
    "Image",
    "ImageError",
    "ImageMissing",
    "SourceUnavailable",
    "hex_of",
    "json_of",
    "resolve",
]

MAX_MANIFEST_BYTES = 4 * 2**20
"""As much as registries take (distribution-spec 1.1, "Pushing Manifests")."""

_MOST_INDEXES = 3
_CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "loongarch64": "loong64",
}
"""uname(2)'s word → Go's, where they differ."""


class ImageError(Exception):
    """An image is damaged, or of a kind that cannot be used; the message says which."""


class ImageMissing(ImageError):
    """The image is not in the store."""


class SourceUnavailable(ImageError):
    """The image cannot be had from where it is to come from, for now: trying again can help.

    Attributes:
        retry_after: seconds that the source asked us to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Blob:
    """A descriptor: what a document says of the content that it names."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image for one platform.

    Attributes:
        manifest: its manifest, which is what the image is known by.
        content: the manifest's bytes.
        layers: the lowest first.
        index: digest of the index that led here, if one did.
        platform: what the index calls it: "linux/amd64".
    """

    manifest: Blob
    content: bytes
    config: Blob
    layers: tuple[Blob, ...]
    index: str | None = None
    platform: str | None = None

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything but the manifest, each once."""
        return tuple(dict.fromkeys((self.config, *self.layers)))

    @property
    def size(self) -> int:
        """In bytes, as it is stored and sent."""
        return len(self.content) + sum(blob.size for blob in self.blobs)


class Documents(Protocol):
    """Where manifests and indexes are read."""

    def document(self, digest: str) -> bytes:
        """The document of that digest, or what goes for it, of at most `MAX_MANIFEST_BYTES`."""


def hex_of(digest: str) -> str:
    """The 64 digits of a digest; raise `ImageError` for anything else."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ImageError(f"{digest!r} is not a sha256 digest (sha256:<64 hexadecimal digits>)")
    return value


def json_of(content: bytes, digest: str) -> dict[str, Any]:
    """Read a document that is known by its digest.

    Raises:
        ImageError: it has another digest, or is no JSON object.
    """
    if hashlib.sha256(content).hexdigest() != hex_of(digest):
        raise ImageError(f"the blob {digest} has been altered: its content has another digest")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"the blob {digest} is not JSON") from error
    if not isinstance(document, dict):
        raise ImageError(f"{digest} is not the manifest of an image")
    return document


def resolve(source: Documents, digest: str) -> Image:
    """The image that a digest stands for: of an index, the one for this machine.

    Raises:
        ImageError: a document is missing, damaged, or of a kind that this node cannot run.
    """
    index, name = None, None
    for _ in range(_MOST_INDEXES):
        content = source.document(digest)
        document = json_of(content, digest)
        if "manifests" not in document:
            return _image(document, content, digest, index=index, platform=name)
        if "layers" in document or "config" in document:  # one reader's index, another's image
            raise ImageError(f"{digest} is both an index and a manifest, and thus neither")
        index = index or digest
        digest, name = _for_this_machine(document, digest)
    raise ImageError(f"{index} is an index of indexes of indexes")


def _image(
    document: dict[str, Any],
    content: bytes,
    digest: str,
    *,
    index: str | None,
    platform: str | None,
) -> Image:
    if document.get("schemaVersion") == 1:
        raise ImageError(f"{digest} is a Docker manifest of schema 1, which no tool makes any more")
    try:
        config = _blob(document["config"])
        layers = tuple(_blob(layer) for layer in document["layers"])
    except (KeyError, TypeError) as error:
        raise ImageError(f"{digest} is not the manifest of an image") from error
    if config.media_type not in _CONFIGS:
        raise ImageError(f"{digest} is no container image; it holds {config.media_type}")
    for layer in layers:
        _check_kind(layer)
    media_type = document.get("mediaType") or "application/vnd.oci.image.manifest.v1+json"
    return Image(
        manifest=Blob(digest, len(content), str(media_type)),
        content=content,
        config=config,
        layers=layers,
        index=index,
        platform=platform,
    )


def _blob(descriptor: dict[str, Any]) -> Blob:
    digest, size, media_type = descriptor["digest"], descriptor["size"], descriptor["mediaType"]
    if not isinstance(digest, str) or not isinstance(media_type, str):
        raise TypeError
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise TypeError
    hex_of(digest)
    return Blob(digest, size, media_type)


def _check_kind(layer: Blob) -> None:
    kind = layer.media_type
    if kind in _LAYERS:
        return
    if "nondistributable" in kind or "foreign" in kind:
        raise ImageError(f"the layer {layer.digest} does not come with its image ({kind})")
    helps = (
        "; let `skopeo copy --dest-compress-format gzip` write it anew" if "zstd" in kind else ""
    )
    raise ImageError(
        f"the layer {layer.digest} is of the kind {kind}; this node unpacks tar, plain or gzip{helps}"
    )


def _for_this_machine(index: dict[str, Any], digest: str) -> tuple[str, str]:
    """The digest of the manifest, and how the index calls its platform."""
    machine = platform.machine()
    wanted = ("linux", _ARCHITECTURES.get(machine, machine))
    offered: dict[str, str] = {}
    try:
        for entry in index["manifests"]:
            known = entry.get("platform") or {}
            words = [known.get("os"), known.get("architecture"), known.get("variant")]
            offered.setdefault("/".join(word for word in words if word), _blob(entry).digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{digest} is not the index of an image") from error
    fitting = [name for name in offered if tuple(name.split("/")[:2]) == wanted]
    if not fitting:
        names = ", ".join(sorted(name for name in offered if name)) or "none"
        raise ImageError(
            f"the index {digest} has no image for {'/'.join(wanted)}, which this machine is;"
            f" it has: {names}"
        )
    # Without a variant comes what every machine of the architecture runs.
    name = min(fitting, key=lambda each: (each.count("/"), list(offered).index(each)))
    return offered[name], name
