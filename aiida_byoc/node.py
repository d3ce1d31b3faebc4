"""How one management node is set up: `node.toml`, written by `verdi data byoc init`, read by agent and launcher."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.validation import field_errors
from aiida_byoc.private_file import write_private
from aiida_byoc.runtimes.fetched import FetchedFiles

__all__ = ["NodeSettings", "SettingsError"]


class SettingsError(Exception):
    """The node's settings cannot be used; the message says what to do."""


class NodeSettings(BaseModel):
    """Everything an agent needs to know, besides the AiiDA profile.

    Attributes:
        node_id: the name the product knows this node by.
        adapter_url: where the adapter listens; the agent connects outward to it.
        audience: the `aud` of the agent's tokens.
        enrolled: whether the product knows the node's key by its enrolment, and access tokens are fetched with it; if
            not, the key stands in the adapter's settings, and the node signs its own tokens.
        key_file: the node's private key (PEM, Ed25519), mode 0600.
        product_keys_file: public keys (JWK Set) that the product signs commands with.
        ca_file: certificates (PEM) of authorities that the adapter's is checked by, beside the usual ones.
        proxy: the HTTP proxy on the way to the adapter; by default what HTTPS_PROXY and NO_PROXY say.
        policy_file: what the owner allows.
        image_store: directory of OCI images, shared with the compute nodes; this node's alone.
        registry_auth_file: credentials for registries, as `docker login` writes them, mode 0600; by default where the
            tools of the agent's user keep theirs.
        fetched: directory of fetched inputs, shared with the compute nodes; by default `fetched` beside the images.
        code: label of the AiiDA code that runs the in-job program on the cluster.
        poll_seconds: how long one poll for commands may stay open, in seconds.
        heartbeat_seconds: time between heartbeats, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Name
    adapter_url: HttpUrl
    audience: str = "byoc-adapter"
    enrolled: bool = False
    key_file: Path
    product_keys_file: Path | None = None
    ca_file: Path | None = None
    proxy: HttpUrl | None = None
    policy_file: Path
    image_store: Path
    registry_auth_file: Path | None = None
    fetched: Path | None = None
    code: str
    poll_seconds: int = Field(default=25, ge=1, le=30)
    heartbeat_seconds: float = Field(default=15, gt=0, le=30)

    @property
    def fetched_files(self) -> FetchedFiles:
        """What the node has fetched for its jobs."""
        return FetchedFiles(self.fetched or self.image_store.with_name("fetched"))

    @classmethod
    def path(cls, config_directory: Path, profile: str) -> Path:
        """Where the settings of a profile live: beside AiiDA's own configuration."""
        return config_directory / "byoc" / f"{profile}.toml"

    @classmethod
    def load(cls, path: Path) -> NodeSettings:
        """Read the settings; raise `SettingsError` with one sentence when they cannot be used."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except FileNotFoundError as error:
            raise SettingsError(f"{path} does not exist; run `verdi data byoc init`") from error
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = field_errors(error)[0]
            raise SettingsError(f"{path} is wrong at {first.field}: {first.message}") from error

    def save(self, path: Path) -> None:
        """Write the settings as TOML, at once and for their owner alone: a proxy's address may hold a password."""
        values = self.model_dump(mode="json", exclude_none=True)
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        write_private(path, ("\n".join(lines) + "\n").encode())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
