"""The demonstration's image: Python and busybox from Debian's packages, as an OCI image layout.

It is made on the spot, since no registry may be within reach, and pinned by its manifest digest. The
packages come from the machine's own apt sources; apt verifies them, and they are unpacked but never
installed, which needs neither root nor a namespace. The same packages give the same digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import rootfs
from lab.paths import LabPaths

REFERENCE = "localhost/byoc/demo:1"
CACHE = Path(__file__).parents[1] / ".cache" / "image"
COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"  # compressors differ between machines


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image on disk; `digest` is its manifest's, as in "sha256:…"."""

    ref: str
    layout_dir: Path
    digest: str


def build(paths: LabPaths, cache: Path = CACHE) -> Image:
    """Return the lab's image, and build it first if not even the cache has it.

    Args:
        cache: a directory that outlives the lab.

    Raises:
        LabError: the packages could not be fetched or unpacked.
    """
    layout = paths.directory("images") / "demo"
    kept = cache / rootfs.recipe()
    if not layout.exists():
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=paths.root) as scratch:
                _write_layout(rootfs.assemble(Path(scratch)), Path(scratch) / "layout")
                _place(Path(scratch) / "layout", kept)
        _place(kept, layout)
    index = json.loads((layout / "index.json").read_text())
    return Image(ref=REFERENCE, layout_dir=layout, digest=index["manifests"][0]["digest"])


def _write_layout(layer: Path, layout: Path) -> None:
    (layout / "blobs" / "sha256").mkdir(parents=True)
    packed = _add_blob(layout, LAYER, layer.read_bytes())
    config = {
        "architecture": rootfs.architecture(),
        "os": "linux",
        "config": {"Env": [f"PATH={COMMAND_PATH}"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add_blob(layout, CONFIG, _encode(config)),
        "layers": [packed],
    }
    entry = _add_blob(layout, MANIFEST, _encode(manifest))
    entry["annotations"] = {"org.opencontainers.image.ref.name": REFERENCE}
    (layout / "oci-layout").write_bytes(_encode({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_bytes(_encode({"schemaVersion": 2, "manifests": [entry]}))


def _add_blob(layout: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _place(source: Path, target: Path) -> None:
    """Copy a directory so that the target is whole or absent, whoever else does the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=target.parent))
    try:
        shutil.copytree(source, draft / "copy")
        (draft / "copy").rename(target)
    except OSError:
        if not target.exists():  # else somebody was faster, with the same content
            raise
    finally:
        shutil.rmtree(draft)
