"""`verdi data byoc images …`: the node's image store."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_byoc.cli.common import node_settings, one_sentence

__all__ = ["images"]


@click.group()
def images() -> None:
    """OCI images that this node holds."""


@images.command("add")
@click.argument("layout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("digest")
@one_sentence
def add(layout: Path, digest: str) -> None:
    """Verify the OCI image layout in directory LAYOUT, copy it and unpack the manifest DIGEST (sha256:…)."""
    from aiida_byoc.runtimes.images import ImageStore

    store = ImageStore(node_settings().image_store)
    store.add(layout, digest)
    click.echo(f"{digest} is in the store, unpacked at {store.rootfs(digest)}")


@images.command("list")
@one_sentence
def list_images() -> None:
    """List the manifest digests in the store."""
    from aiida_byoc.runtimes.images import ImageStore

    for digest in ImageStore(node_settings().image_store).digests():
        click.echo(digest)
