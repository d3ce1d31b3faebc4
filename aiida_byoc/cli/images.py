"""`verdi data byoc images …`: the node's image store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_byoc.cli.common import node_settings, node_tables, one_sentence, show

if TYPE_CHECKING:
    from aiida_byoc.runtimes.images import ImageStore
    from aiida_byoc.runtimes.sources import Source

__all__ = ["images"]

_REGISTRY = "docker://"
_SHOWN = 5
_COLUMNS = ["digest", "state", "size", "names"]


@click.group()
def images() -> None:
    """OCI images that this node holds."""


@images.command("add")
@click.argument("source")
@click.argument("digest", required=False)
@click.option(
    "--auth-file",
    type=click.Path(path_type=Path),
    help="Credentials for registries.  [default: the node's, else where docker, podman or skopeo keep them]",
)
@click.option(
    "--max-mib",
    type=click.IntRange(1),
    default=65536,
    show_default=True,
    help="Refuse an image that is larger, as it is sent.",
)
@one_sentence
def add(source: str, digest: str | None, auth_file: Path | None, max_mib: int) -> None:
    """Verify an image, copy it into the store and unpack it.

    SOURCE is an OCI layout (a directory), an OCI archive (tar, plain or gzip) or docker://HOST/REPOSITORY[:TAG|@DIGEST].
    DIGEST (sha256:…) says which image, and is the one that comes, or none; of an index comes this machine's image.
    """
    settings = node_settings()
    with _store() as store:
        with _opened(source, digest, store, auth_file or settings.registry_auth_file) as found:
            opened, wanted = found
            image = store.take(opened, wanted, most_bytes=max_mib << 20)
        digest = image.manifest.digest
        if image.index is not None:
            click.echo(f"{image.index} is an index; {image.platform} is {digest}")
        elif source.startswith(_REGISTRY):
            click.echo(f"{source} is {digest}")
        click.echo(f"{digest} is in the store, unpacked at {store.rootfs(digest)}")
    _tell_policy(source, digest)


@images.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def list_images(as_json: bool) -> None:
    """List the images in the store, how the policy names them, and what it names that is not there."""
    from aiida_byoc.runtimes.oci import ImageError

    names, rows = _names(), []
    with _store() as store:
        for digest in dict.fromkeys([*store.digests(), *names]):
            row: dict[str, Any] = {"digest": digest, "state": "missing", "size": None}
            if store.has(digest):
                row["state"] = "unpacked" if store.is_unpacked(digest) else "packed"
                try:
                    row["size"] = store.image(digest).size
                except ImageError:
                    row["state"] = "damaged"
            rows.append({**row, "names": names.get(digest, [])})
    if not as_json:
        rows = [_for_people(row) for row in rows]
    show(rows, _COLUMNS, as_json=as_json)


@images.command("verify")
@click.argument("digests", nargs=-1, metavar="[DIGEST]...")
@click.option(
    "--repair", is_flag=True, help="Unpack anew what was altered, if its layout is sound."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def verify(digests: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Hash every blob and every unpacked file again, by default of all images; exit status 1 if one was altered."""
    import json
    from dataclasses import asdict

    from aiida_byoc.runtimes.images import ImageMissing
    from aiida_byoc.runtimes.upkeep import Condition, condition

    found = []
    with _store() as store:
        for digest in digests or store.digests():
            try:
                seen = condition(store, digest)
                if repair and seen.files and not seen.blobs:
                    store.unpack_anew(digest)
                    seen = condition(store, digest)
            except ImageMissing as error:
                seen = Condition(digest, [str(error)])
            found.append(seen)
            if not as_json:
                click.echo(f"{digest}  {'sound' if seen.is_sound else 'ALTERED'}")
                _tell_damage(seen.blobs, f"verdi data byoc images add SOURCE {digest}")
                _tell_damage(seen.files, f"verdi data byoc images verify --repair {digest}")
    if as_json:
        click.echo(json.dumps([asdict(seen) for seen in found], indent=2))
    if not all(seen.is_sound for seen in found):
        raise SystemExit(1)


@images.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@one_sentence
def prune(dry_run: bool) -> None:
    """Remove images that neither the policy names nor a job under way needs, and what killed processes left."""
    from aiida_byoc.commands.image_use import used_digests
    from aiida_byoc.runtimes.upkeep import dispensable, remove, retire

    with _store() as store, node_tables() as connection:
        with used_digests(connection) as used:
            named = set(_names(strictly=True))
            places = dispensable(store, named=named, used=used)
            if not dry_run:  # in an instant each; removing takes its time
                places = [aside for place in places if (aside := retire(store, place))]
        freed = 0
        for place in places:
            click.echo(
                f"{'would remove' if dry_run else 'removing'} {place.relative_to(store.directory)}"
            )
            freed += 0 if dry_run else remove(place)
    if not dry_run:
        click.echo(f"{freed / 2**20:.1f} MiB freed")


@contextlib.contextmanager
def _store() -> Iterator[ImageStore]:
    """The node's store; what its disk has against us is one sentence."""
    from aiida_byoc.runtimes.images import ImageStore
    from aiida_byoc.runtimes.oci import ImageError

    directory = node_settings().image_store
    try:
        yield ImageStore(directory)
    except OSError as error:
        where = error.filename or directory
        raise ImageError(f"the image store cannot be used: {where}: {error.strerror}") from error


@contextlib.contextmanager
def _opened(
    source: str, digest: str | None, store: ImageStore, known: Path | None
) -> Iterator[tuple[Source, str]]:
    """The source, and which image of it is wanted."""
    from aiida_byoc.runtimes import sources
    from aiida_byoc.runtimes.oci import ImageError
    from aiida_byoc.runtimes.reference import Reference

    if source.startswith(_REGISTRY):
        from aiida_byoc.registry.credentials import auth_file
        from aiida_byoc.registry.repository import repository

        reference = Reference.parse(source.removeprefix(_REGISTRY))
        if digest is not None and reference.digest not in {None, digest}:
            raise ImageError(f"{source} names another digest than {digest}")
        with repository(reference, known or auth_file()) as opened:
            resolved = opened.digest()
            if digest not in {None, resolved}:
                raise ImageError(f"{source} is {resolved}, not {digest}")
            yield opened, resolved
    elif Path(source).is_dir():
        layout = sources.directory(Path(source))
        yield layout, digest or layout.digest()
    elif Path(source).is_file():
        with sources.archive(Path(source), store.directory) as layout:
            yield layout, digest or layout.digest()
    else:
        raise ImageError(
            f"{source} is neither a directory nor a file, and does not begin with {_REGISTRY}"
        )


def _names(*, strictly: bool = False) -> dict[str, list[str]]:
    """How the policy names each digest; of a policy that cannot be read nothing is known, unless `strictly`."""
    from aiida_byoc.commands.image_policy import names_of
    from aiida_byoc.commands.policy import Policy, PolicyError

    try:
        return names_of(Policy.load(node_settings().policy_file).images)
    except PolicyError as error:
        if strictly:
            raise
        click.echo(f"Warning: {error}", err=True)
        return {}


def _tell_policy(source: str, digest: str) -> None:
    """How jobs may call the image, or what the owner writes so that they may."""
    from aiida_byoc.runtimes.reference import Reference

    if names := _names().get(digest):
        click.echo(f"the policy names it {', '.join(names)}")
        return
    repository, tag = "localhost/NAME", None
    if source.startswith(_REGISTRY):
        reference = Reference.parse(source.removeprefix(_REGISTRY))
        repository, tag = reference.name, reference.tag
    click.echo("jobs may use it once policy.toml says so:\n")
    click.echo(f'[images."{repository}"]\ndigests = ["{digest}"]')
    if tag is not None:
        click.echo(f'tags = {{ "{tag}" = "{digest}" }}')


def _tell_damage(found: list[str], helps: str) -> None:
    for sentence in found[:_SHOWN]:
        click.echo(f"    {sentence}")
    if len(found) > _SHOWN:
        click.echo(f"    and {len(found) - _SHOWN} more")
    if found:
        click.echo(f"    helps: {helps}")


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    size = None if row["size"] is None else f"{row['size'] / 2**20:.1f} MiB"
    return {**row, "size": size, "names": ", ".join(row["names"])}
