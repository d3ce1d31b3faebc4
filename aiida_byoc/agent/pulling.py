"""The lanes that fetch images which accepted jobs wait for: workers and launcher speak no HTTP."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import psycopg

from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.commands import pulls
from aiida_byoc.commands.pulls import Pull
from aiida_byoc.node import NodeSettings
from aiida_byoc.registry.credentials import AuthFileError, auth_file
from aiida_byoc.registry.repository import repository
from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import ImageError, SourceUnavailable, resolve
from aiida_byoc.runtimes.reference import Reference

__all__ = ["MOST_FAILURES", "pull_lanes"]

_LOGGER = logging.getLogger(__name__)
_LANES = 2
"""A large image of one tenant does not keep all others waiting."""
_IDLE_SECONDS = 2.0
"""Of each lane: one of them looks every second."""
_FIRST_SECONDS = 5.0
_MOST_SECONDS = 300.0
MOST_FAILURES = 8
"""With the pauses in between, about ten minutes; what arrived in each try counts for the next."""


def pull_lanes(
    settings: NodeSettings,
) -> dict[str, Callable[[psycopg.Connection, AdapterClient], float]]:
    """One step per lane, by its name: fetch an image, and return how long to wait before the next, in seconds.

    Names are the same in every agent (there is one per profile): what a dead agent had claimed is taken up at once.
    """
    names = [f"images-{number}" for number in range(1, _LANES + 1)]
    return {name: functools.partial(_step, settings=settings, lane=name) for name in names}


def _step(
    connection: psycopg.Connection, _: AdapterClient, *, settings: NodeSettings, lane: str
) -> float:
    pull = pulls.claim(connection, lane)
    if pull is None:
        return _IDLE_SECONDS
    if not pull.is_wanted:
        pulls.done(connection, pull)
        return 0
    _LOGGER.info("Pulling event=image_pulling digest=%s from=%s", pull.digest, pull.repository)
    try:
        _fetch(settings, pull)
    except (SourceUnavailable, OSError) as error:
        _put_off(connection, pull, error)
    except ImageError as error:
        _give_up(connection, pull, str(error))
    else:
        pulls.done(connection, pull)
        _LOGGER.info("Pulled event=image_pulled digest=%s from=%s", pull.digest, pull.repository)
    return 0


def _fetch(settings: NodeSettings, pull: Pull) -> None:
    """Have the image in the store, unpacked."""
    store = ImageStore(settings.image_store)
    if not store.has(pull.digest):
        reference = Reference.parse(f"{pull.repository}@{pull.digest}")
        with repository(reference, settings.registry_auth_file or auth_file()) as source:
            image = resolve(source, pull.digest)
            if image.index is not None:
                raise ImageError(
                    f"it is an index of images for several platforms; the policy must approve one of them, such as"
                    f" {image.manifest.digest} for {image.platform}"
                )
            store.take(source, pull.digest, most_bytes=pull.max_mib << 20)
    try:
        store.rootfs(pull.digest)
    except ImageError as error:  # the work chain says so with the code that this has
        _LOGGER.warning("Damaged event=image_damaged digest=%s: %s", pull.digest, error)


def _put_off(connection: psycopg.Connection, pull: Pull, error: Exception) -> None:
    """What the job is told names nothing of this machine; the log does."""
    message = str(error)
    if isinstance(error, AuthFileError):
        message = "the node's credentials for registries cannot be used"
    elif isinstance(error, OSError):
        message = f"the node's image store cannot be used: {error.strerror}"
    _LOGGER.warning(
        "Not pulled event=image_not_pulled digest=%s from=%s failures=%s: %s",
        pull.digest,
        pull.repository,
        pull.failures + 1,
        error,
    )
    if pull.failures + 1 >= MOST_FAILURES:
        _give_up(connection, pull, message)
        return
    seconds = min(_MOST_SECONDS, _FIRST_SECONDS * 2**pull.failures)
    asked = getattr(error, "retry_after", None) or 0.0
    pulls.postpone(connection, pull, message, max(seconds, min(asked, _MOST_SECONDS)))


def _give_up(connection: psycopg.Connection, pull: Pull, message: str) -> None:
    failed = pulls.give_up(
        connection, pull, f"the image {pull.repository}@{pull.digest} cannot be pulled: {message}"
    )
    _LOGGER.error(
        "Given up event=image_given_up digest=%s from=%s jobs=%s: %s",
        pull.digest,
        pull.repository,
        failed,
        message,
    )
