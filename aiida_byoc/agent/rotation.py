"""A new key for an enrolled node, without a moment in which it has none: add, prove, switch, retire.

Two files beside the key's say how far an earlier try came: `.next` is to become the key, `.old` was the key and is to
be retired. Killed anywhere, it goes on from there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.agent.backoff import Backoff
from aiida_byoc.agent.credential import fetched_token
from aiida_byoc.agent.enrolment import add_key, retire_key
from aiida_byoc.agent.keys import made_key, private_key, public_key
from aiida_byoc.agent.link import AdapterUnavailable
from aiida_byoc.node import NodeSettings
from aiida_byoc.private_file import sync_directory

__all__ = ["rotate"]

_PROOF_SECONDS = 75.0
"""An adapter believes what it heard of a node for up to 60 s."""


def rotate(http: httpx.Client, settings: NodeSettings) -> str:
    """Change the key, or bring an interrupted change to its end; return the name of the key that is used now.

    Raises:
        AdapterUnavailable: a step failed; the node has a key that works, and running this again goes on.
        SettingsError: a key's file cannot be used.
    """
    current, following, former = (
        settings.key_file,
        _beside(settings.key_file, "next"),
        _beside(settings.key_file, "old"),
    )
    if former.exists() and _name(former) == _name(current):  # killed between link and switch
        former.unlink()
    if not former.exists():
        key = made_key(following)
        bearer = fetched_token(http, settings, private_key(current)).access_token
        add_key(http, settings, bearer, key)
        _prove(http, settings, key)
        os.link(current, former)
        following.replace(current)
        sync_directory(current.parent)
    bearer = fetched_token(http, settings, private_key(current)).access_token
    retire_key(http, settings, bearer, _name(former))
    former.unlink()
    return _name(current)


def _prove(http: httpx.Client, settings: NodeSettings, key: Ed25519PrivateKey) -> None:
    """The adapter gives a token for the new key."""
    backoff, until = Backoff(first=0.5, most=5.0), time.monotonic() + _PROOF_SECONDS
    while True:
        try:
            fetched_token(http, settings, key)
        except AdapterUnavailable as error:
            if error.status != 401 or time.monotonic() >= until:
                raise
            time.sleep(backoff.failed(0.1))
        else:
            return


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _name(path: Path) -> str:
    return public_key(private_key(path)).key_id
