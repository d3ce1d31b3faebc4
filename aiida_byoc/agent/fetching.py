"""The lanes that fetch files which accepted jobs wait for: workers, launcher and jobs speak no HTTP."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator

import psycopg

from aiida_byoc.agent.client import AdapterClient
from aiida_byoc.agent.download import NotNow, Unfetchable, host_of, opened
from aiida_byoc.commands import fetches
from aiida_byoc.commands.fetches import Fetch
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.node import NodeSettings
from aiida_byoc.runtimes.fetched import WrongContent

__all__ = ["MOST_FAILURES", "fetch_lanes"]

_LOGGER = logging.getLogger(__name__)
_LANES = 4
"""A large file of one tenant does not keep all others waiting."""
_IDLE_SECONDS = 2.0
"""Of each lane: one of them looks twice a second."""
_PRUNE_SECONDS = 600.0
_WANTED_SECONDS = 5.0
_FIRST_SECONDS = 2.0
_MOST_SECONDS = 300.0
MOST_FAILURES = 8
"""With the pauses in between, about four minutes."""


class _Unwanted(Exception):
    """Nobody waits for the file any more."""


def fetch_lanes(
    settings: NodeSettings,
) -> dict[str, Callable[[psycopg.Connection, AdapterClient], float]]:
    """One step per lane, by its name: fetch a file, and return how long to wait before the next, in seconds.

    Names are the same in every agent (there is one per profile): what a dead agent had claimed is taken up at once. One
    more removes, now and then, what nobody wants any more.
    """
    names = [f"fetch-{number}" for number in range(1, _LANES + 1)]
    return {
        **{name: functools.partial(_step, settings=settings, lane=name) for name in names},
        "fetched": functools.partial(_prune, settings=settings),
    }


def _prune(connection: psycopg.Connection, _: AdapterClient, *, settings: NodeSettings) -> float:
    with contextlib.suppress(PolicyError):  # other loops log it
        days = Policy.load(settings.policy_file).data.keep_fetched_days
        removed = settings.fetched_files.prune(days, fetches.wanted(connection))
        if removed:
            _LOGGER.info("Pruned event=fetched_pruned files=%s days=%s", removed, days)
    return _PRUNE_SECONDS


def _step(
    connection: psycopg.Connection, _: AdapterClient, *, settings: NodeSettings, lane: str
) -> float:
    fetch = fetches.claim(connection, lane)
    if fetch is None:
        return _IDLE_SECONDS
    try:
        _fetch(connection, fetch, settings, lane)
    except _Unwanted:
        fetches.drop(connection, fetch)
    except (NotNow, OSError, PolicyError) as error:
        _put_off(connection, fetch, error)
    except (Unfetchable, WrongContent) as error:
        _give_up(connection, fetch, str(error))
    else:
        fetches.done(connection, fetch)
    return 0


def _fetch(connection: psycopg.Connection, fetch: Fetch, settings: NodeSettings, lane: str) -> None:
    """Have the file in the store."""
    if not fetches.is_wanted(connection, fetch):
        raise _Unwanted
    files = settings.fetched_files
    if files.touch(fetch.tenant_id, fetch.sha256):
        return
    rules = Policy.load(settings.policy_file).data  # read anew: an owner's change counts at once
    with opened(fetch.url, rules) as blocks:
        watched = _watched(blocks, connection, fetch)
        files.keep(fetch.tenant_id, fetch.sha256, watched, lane=lane, most=rules.max_input_bytes)
    _LOGGER.info("Fetched event=input_fetched sha256=%s from=%s", fetch.sha256, host_of(fetch.url))


def _watched(
    blocks: Iterator[bytes], connection: psycopg.Connection, fetch: Fetch
) -> Iterator[bytes]:
    """Look now and then whether somebody still waits."""
    looked = time.monotonic()
    for block in blocks:
        if time.monotonic() - looked > _WANTED_SECONDS:
            looked = time.monotonic()
            if not fetches.is_wanted(connection, fetch):
                raise _Unwanted
        yield block


def _put_off(connection: psycopg.Connection, fetch: Fetch, error: Exception) -> None:
    """What the job is told names nothing of this machine; the log does."""
    message = str(error)
    if not isinstance(error, NotNow):
        message = "the node cannot store or decide it now"
    _LOGGER.warning(
        "Not fetched event=input_not_fetched sha256=%s from=%s failures=%s: %s",
        fetch.sha256,
        host_of(fetch.url),
        fetch.failures + 1,
        error,
    )
    if fetch.failures + 1 >= MOST_FAILURES:
        _give_up(connection, fetch, message)
        return
    seconds = min(_MOST_SECONDS, _FIRST_SECONDS * 2**fetch.failures)
    asked = getattr(error, "retry_after", None) or 0.0
    fetches.postpone(connection, fetch, message, max(seconds, min(asked, _MOST_SECONDS)))


def _give_up(connection: psycopg.Connection, fetch: Fetch, message: str) -> None:
    _LOGGER.error(
        "Given up event=input_given_up submission=%s sha256=%s from=%s: %s",
        fetch.submission_id,
        fetch.sha256,
        host_of(fetch.url),
        message,
    )
    told = f"the input {fetch.name} cannot be fetched from {host_of(fetch.url)}: {message}"
    fetches.give_up(connection, fetch, told)
