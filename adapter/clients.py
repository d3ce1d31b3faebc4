"""Who a client is: a token of a configured issuer, or a service token of the product."""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from adapter.caching import Allowance, Cached
from adapter.jwks import PublishedKeys
from adapter.product import Product, ServiceTokenRecord
from adapter.settings import ClientIssuer, Settings
from adapter.tokens import LEEWAY_SECONDS, claimed, header, verified
from aiida_byoc.contracts.identity import NAME
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["ClientIdentity", "Issuers", "OpaqueTokens"]

_OPAQUE = re.compile(r"byoc_st_[A-Za-z0-9_-]{43}")
_UNKNOWN_SECONDS = 30.0
_MOST_TOKENS = 10_000
_MOST_VERIFIED = 1000
_STRANGERS_A_SECOND = 10.0
_STRANGERS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A client of the API, acting for exactly one tenant, until its token expires (seconds since the epoch)."""

    subject: str
    tenant_id: str
    scopes: frozenset[str]
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was taken, and what of that may change: one client sends the same for minutes."""

    issuer: _Issuer
    kid: object
    key: jwt.PyJWK
    client: ClientIdentity


class _Issuer:
    """One issuer of the settings with its keys."""

    def __init__(self, settings: ClientIssuer, audience: str, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._audience = settings.audience or audience
        self._published: PublishedKeys | None = None
        if settings.jwks is None:
            url = str(settings.jwks_url) if settings.jwks_url is not None else None
            self._published = PublishedKeys(
                settings.issuer, url, refetch_seconds=settings.refetch_seconds, clock=clock
            )

    async def identify(self, token: str) -> _Verified:
        settings = self._settings
        kid = header(token, "kid")
        claims, key = verified(
            token,
            await self._candidates(kid),
            settings.algorithms,
            issuer=settings.issuer,
            audience=self._audience,
        )
        tenant_id = _claim(claims, settings.tenant_claim)
        if not isinstance(tenant_id, str) or not re.fullmatch(NAME, tenant_id):
            raise ProblemError("unauthenticated")
        scopes = _scopes(_claim(claims, settings.scope_claim), settings.scope_prefix)
        client = ClientIdentity(claims["sub"], tenant_id, scopes, float(claims["exp"]))
        return _Verified(self, kid, key, client)

    async def is_good_still(self, known: _Verified) -> bool:
        """Whether the token would be taken again: its key is one of the issuer's, and its time is not over."""
        is_ours = any(key is known.key for key in await self._candidates(known.kid))
        return is_ours and int(known.client.expires_at) > time.time() - LEEWAY_SECONDS

    async def close(self) -> None:
        if self._published is not None:
            await self._published.close()

    async def _candidates(self, kid: object) -> list[jwt.PyJWK]:
        if self._published is not None:
            return await self._published.candidates(kid)
        assert self._settings.jwks is not None  # noqa: S101 - the settings have one or the other
        return self._settings.jwks.candidates(kid)


class Issuers:
    """The configured issuers; without any nobody is let in."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuers: Mapping[str, _Issuer] = {
            issuer.issuer: _Issuer(issuer, settings.audience, clock)
            for issuer in settings.client_issuers
        }
        self._known: OrderedDict[str, _Verified] = OrderedDict()

    async def identify(self, token: str) -> ClientIdentity:
        """Who signed in with this token.

        Raises:
            ProblemError: `unauthenticated`, whatever is wrong with it; `product-unavailable` when its issuer's keys
                cannot be had.
        """
        known = self._known.get(token)
        if known is not None and await known.issuer.is_good_still(known):
            return known.client
        issuer = self._issuers.get(claimed(token, "iss"))
        if issuer is None:
            raise ProblemError("unauthenticated")
        verified = await issuer.identify(token)
        self._known[token] = verified
        if len(self._known) > _MOST_VERIFIED:
            self._known.popitem(last=False)
        return verified.client

    async def close(self) -> None:
        """Close the connections."""
        for issuer in self._issuers.values():
            await issuer.close()


class OpaqueTokens:
    """Service tokens, which only the product can read: it is asked by their hash.

    Args:
        product: `None` when there are none.
        seconds: how long its answer counts.
    """

    def __init__(
        self,
        product: Product | None,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cached: Cached[str, ServiceTokenRecord] | None = None
        if product is not None:
            self._cached = Cached(
                lambda token_hash: product.service_token(_NOBODY, token_hash),
                seconds=seconds,
                unknown_seconds=_UNKNOWN_SECONDS,
                most=_MOST_TOKENS,
                strangers=Allowance(
                    rate=_STRANGERS_A_SECOND, burst=_STRANGERS_AT_ONCE, clock=clock
                ),
                clock=clock,
            )

    @staticmethod
    def are_like(token: str) -> bool:
        """Whether it has the form of one."""
        return _OPAQUE.fullmatch(token) is not None

    async def identify(self, token: str) -> ClientIdentity:
        """For whom it was made, or `unauthenticated`; `product-unavailable` when nobody can tell."""
        told = None
        if self._cached is not None:
            told = await self._cached.get(hashlib.sha256(token.encode()).hexdigest())
        if told is None or told.expires_at.timestamp() <= time.time():
            raise ProblemError("unauthenticated")
        return ClientIdentity(
            f"service-token:{told.token_id}",
            told.tenant_id,
            frozenset(told.scopes),
            told.expires_at.timestamp(),
        )


_NOBODY = "adapter"
"""Stands where the product wants a node's name: the question is about none."""


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim of this name, else the member at this path; names of claims may have dots of their own."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _scopes(value: object, prefix: str) -> frozenset[str]:
    if isinstance(value, str):
        named = value.split(" ")
    else:
        named = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
    return frozenset(one.removeprefix(prefix) for one in named if one.startswith(prefix))
