"""What an operator decides: environment `BYOC_ADAPTER_*` over the file that `BYOC_ADAPTER_CONFIG` names.

Everything is checked at start. An empty configuration gives nobody access.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from adapter.hosts import is_origin, is_safe
from adapter.keys import Algorithm, Jwks, load_service_key
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.validation import field_errors

__all__ = [
    "CONFIG_VARIABLE",
    "ClientIssuer",
    "ConvexSettings",
    "NodeSettings",
    "Settings",
    "SettingsError",
    "load_settings",
]

CONFIG_VARIABLE = "BYOC_ADAPTER_CONFIG"


def _not_a_placeholder(value: str) -> str:
    if any(mark in value.lower() for mark in ("<", ">", "changeme", "change-me", "placeholder")):
        raise ValueError("is still a placeholder: set the real value")
    return value


def _origin(value: str) -> str:
    if not is_origin(value):
        raise ValueError(
            "is no origin: https://host[:port], or http on this machine, in lower case and with nothing behind it"
        )
    return value


Issuer = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_not_a_placeholder)]
Origin = Annotated[str, AfterValidator(_origin)]
Seconds = Annotated[float, Field(gt=0, le=600)]


class SettingsError(Exception):
    """The configuration cannot be used; the text has one sentence per fault and no secret."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClientIssuer(_Section):
    """Who may sign tokens of clients, where its keys are, and which claims name tenant and scopes.

    A claim may be named by its path (`o.id`). Scopes are a string with spaces or a list of strings; `scope_prefix` is
    taken off each, and what lacks it is none of ours.
    """

    issuer: Issuer
    jwks: Jwks | None = None
    jwks_url: HttpUrl | None = None
    discovery: bool = False
    refetch_seconds: Seconds = 30
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["ES256"]
    audience: Annotated[str, Field(min_length=1), AfterValidator(_not_a_placeholder)] | None = None
    tenant_claim: Annotated[str, Field(min_length=1)] = "tenant_id"
    scope_claim: Annotated[str, Field(min_length=1)] = "scope"
    scope_prefix: str = ""

    @model_validator(mode="after")
    def _has_one_source_of_keys(self) -> ClientIssuer:
        if sum((self.jwks is not None, self.jwks_url is not None, self.discovery)) != 1:
            raise ValueError("give one of jwks, jwks_url and discovery = true")
        if self.jwks_url is not None and not is_safe(str(self.jwks_url)):
            raise ValueError("jwks_url must be https, or http on this machine")
        if self.discovery and not is_safe(self.issuer):
            raise ValueError("with discovery, issuer must be an https URL, or http on this machine")
        return self


class NodeSettings(_Section):
    """A management node: the keys it signs with and the tenants it serves."""

    jwks: Jwks
    tenants: Annotated[list[Name], Field(min_length=1)]


class ConvexSettings(_Section):
    """The product's deployment, the identity the adapter writes with (ES256 service JWT), how long it may take."""

    url: HttpUrl
    service_issuer: Issuer
    service_key_file: Path
    key_id: Annotated[str, Field(min_length=1), AfterValidator(_not_a_placeholder)]
    audience: Annotated[str, Field(min_length=1)] = "convex"
    timeout_seconds: Seconds = 15

    @field_validator("service_key_file")
    @classmethod
    def _usable(cls, path: Path) -> Path:
        load_service_key(path)
        return path


class Settings(BaseSettings):
    """All of the adapter's settings. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="BYOC_ADAPTER_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    public_url: HttpUrl | None = None
    expose_docs: bool = False
    cors_origins: Annotated[list[Origin], Field(max_length=32)] = []
    request_seconds: Seconds = 20
    audience: Annotated[str, Field(min_length=1), AfterValidator(_not_a_placeholder)] = (
        "byoc-adapter"
    )
    client_issuers: list[ClientIssuer] = []
    nodes: dict[Name, NodeSettings] = {}
    registry: bool = True
    registry_seconds: Annotated[float, Field(gt=0, le=60)] = 60
    convex: ConvexSettings
    verdict_timeout_seconds: Seconds = 15
    redelivery_seconds: Seconds = 5
    presence_seconds: Seconds = 45
    follow_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600
    log_requests_per_tenant: Annotated[int, Field(ge=1, le=10_000)] = 32

    @model_validator(mode="after")
    def _issuers_are_distinct(self) -> Settings:
        names = [issuer.issuer for issuer in self.client_issuers] + list(self.nodes)
        if len(set(names)) != len(names):
            raise ValueError("client_issuers and nodes must not share or repeat an issuer name")
        if self.convex.service_issuer in names:
            raise ValueError("convex.service_issuer must not be the name of an issuer or node")
        return self

    @model_validator(mode="after")
    def _audiences_differ(self) -> Settings:
        # The service key signs for both: nothing that a node is given may open the product.
        if self.audience == self.convex.audience:
            raise ValueError("audience must differ from convex.audience")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file; no .env and no secrets directory."""
        path = os.environ.get(CONFIG_VARIABLE)
        if path is None:
            return init_settings, env_settings
        if path.endswith(".json"):
            return init_settings, env_settings, JsonConfigSettingsSource(settings_cls, path)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))

    def missing(self) -> list[str]:
        """What must still be configured before anybody has access; the product may know nodes and clients."""
        if self.registry:
            return []
        return [name for name in ("client_issuers", "nodes") if not getattr(self, name)]


def load_settings() -> Settings:
    """Read the environment and the file it names.

    Raises:
        SettingsError: one sentence per fault, values left out.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path is not None and not Path(path).is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} names {path}, which is not a file.")
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{fault.field}: {fault.message}." for fault in field_errors(error)]
        raise SettingsError("\n".join(faults)) from error
    except OSError as error:
        raise SettingsError(
            f"{CONFIG_VARIABLE} names {path}, which cannot be read: {error.strerror}."
        ) from error
    except ValueError as error:
        # The sources raise when the file is no TOML or JSON, or a variable no JSON; both texts may quote it.
        raise SettingsError(
            f"{CONFIG_VARIABLE} or a BYOC_ADAPTER_ variable cannot be parsed (TOML, or JSON in a .json file)."
        ) from error
