"""Who this node is at a registry: the file that `docker login`, `podman login` and `skopeo login` write.

Places and form are those of containers-auth.json(5). Credential helpers belong to desktops; this node runs none.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_byoc.runtimes.oci import SourceUnavailable
from aiida_byoc.runtimes.reference import Reference

__all__ = ["AuthFileError", "Login", "auth_file", "login"]

_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}


class AuthFileError(SourceUnavailable):
    """The file with the credentials cannot be used; the message is for the node's owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What proves who we are; `token` (an OAuth 2 refresh token) wins over the password."""

    user: str = ""
    password: str = ""
    token: str | None = None


def auth_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that this user's tools have written, if there is one."""
    home = Path(environment.get("HOME") or "/nonexistent")
    runtime = environment.get("XDG_RUNTIME_DIR")
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return Path(named)
    places = [
        *([Path(runtime) / "containers" / "auth.json"] if runtime else []),
        Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json",
        Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
    ]
    return next((place for place in places if place.is_file()), None)


def login(file: Path | None, reference: Reference) -> Login | None:
    """The most specific entry for a repository; `None` means that we come as a stranger.

    Raises:
        AuthFileError: the file cannot be read, others can read it as well, or an entry has no sense.
    """
    if file is None:
        return None
    entries = {_key(name): entry for name, entry in _entries(file).items()}
    parts = [reference.host, *reference.repository.split("/")]
    for length in range(len(parts), 0, -1):
        entry = entries.get(_key("/".join(parts[:length])))
        if entry:
            return _login(file, entry)
    return None


def _entries(file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            entries = dict(json.load(opened).get("auths") or {})
    except OSError as error:
        raise AuthFileError(f"the auth file {file} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise AuthFileError(
            f"the auth file {file} is not JSON as containers-auth.json(5) wants it"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AuthFileError(f"the auth file {file} is open to others; chmod 600 {file}")
    return entries


def _key(name: str) -> str:
    """`https://host/v1/` is what Docker's oldest files call `host`."""
    bare = name.removeprefix("https://").removeprefix("http://").rstrip("/")
    bare = bare.removesuffix("/v1").removesuffix("/v2")
    host, slash, rest = bare.partition("/")
    return ("docker.io" if host in _DOCKER_HUB else host) + slash + rest


def _login(file: Path, entry: Mapping[str, Any]) -> Login:
    try:
        user, _, password = (
            base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
        )
        return Login(
            user=user or str(entry.get("username") or ""),
            password=password or str(entry.get("password") or ""),
            token=entry.get("identitytoken") or None,
        )
    except (ValueError, AttributeError) as error:
        raise AuthFileError(f"an entry of the auth file {file} has no sense") from error
