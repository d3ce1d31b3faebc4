"""Who is asking: verified JWTs, bound to a tenant (client) or to a node. Every refusal looks the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from fastapi import Request

from adapter.keys import Algorithm, Jwks
from adapter.settings import Settings
from aiida_byoc.contracts.identity import NAME
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["ClientGuard", "ClientIdentity", "NodeGuard", "NodeIdentity"]

_LEEWAY_SECONDS = 60
_MAX_TOKEN_CHARACTERS = 8 * 1024
_NODE_ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "EdDSA")
_BEARER = re.compile(r"Bearer +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A client of the API, acting for exactly one tenant, until its token expires (seconds since the epoch)."""

    subject: str
    tenant_id: str
    scopes: frozenset[str]
    expires_at: float


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A management node and the tenants it serves."""

    node_id: str
    tenants: frozenset[str]


class ClientGuard:
    """Lets clients in: token of a configured issuer, scope for the route, node that serves the tenant."""

    def __init__(self, settings: Settings) -> None:
        self._audience = settings.audience
        self._issuers = {issuer.issuer: issuer for issuer in settings.client_issuers}
        self._tenants = {name: frozenset(node.tenants) for name, node in settings.nodes.items()}

    def admit(self, request: Request, node_id: str, *, scope: str) -> ClientIdentity:
        """Return the client, or raise `unauthenticated`, `forbidden`, `not-found`, in this order."""
        client = self._identify(request)
        if scope not in client.scopes:
            raise ProblemError(
                "forbidden", f"The credential does not allow this: it needs the scope {scope}."
            )
        if client.tenant_id not in self._tenants.get(node_id, frozenset()):
            raise ProblemError("not-found")
        return client

    def _identify(self, request: Request) -> ClientIdentity:
        token = _bearer(request)
        issuer = self._issuers.get(_claimed_issuer(token))
        if issuer is None:
            raise ProblemError("unauthenticated")
        claims = _verified(token, issuer.jwks, issuer.algorithms, issuer.issuer, self._audience)
        tenant_id, scope = claims.get(issuer.tenant_claim), claims.get("scope", "")
        if not isinstance(tenant_id, str) or not re.fullmatch(NAME, tenant_id):
            raise ProblemError("unauthenticated")
        scopes = frozenset(scope.split(" ")) if isinstance(scope, str) else frozenset()
        return ClientIdentity(claims["sub"], tenant_id, scopes, float(claims["exp"]))


class NodeGuard:
    """Lets nodes in: token signed by the node's own key, at the node's own path."""

    def __init__(self, settings: Settings) -> None:
        self._audience = settings.audience
        self._nodes = settings.nodes

    def admit(self, request: Request, node_id: str) -> NodeIdentity:
        """Return the node, or raise `unauthenticated`, then `not-found` when the path is another's."""
        token = _bearer(request)
        name = _claimed_issuer(token)
        node = self._nodes.get(name)
        if node is None:
            raise ProblemError("unauthenticated")
        claims = _verified(token, node.jwks, _NODE_ALGORITHMS, name, self._audience)
        if claims["sub"] != name:
            raise ProblemError("unauthenticated")
        if node_id != name:
            raise ProblemError("not-found")
        return NodeIdentity(name, frozenset(node.tenants))


def _bearer(request: Request) -> str:
    headers = request.headers.getlist("authorization")
    found = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None or len(found[1]) > _MAX_TOKEN_CHARACTERS:
        raise ProblemError("unauthenticated")
    return found[1]


def _claimed_issuer(token: str) -> str:
    """Read `iss` before verification, only to choose the keys."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise ProblemError("unauthenticated") from error
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def _verified(
    token: str, jwks: Jwks, algorithms: Sequence[Algorithm], issuer: str, audience: str
) -> dict[str, Any]:
    """The claims, if one of the issuer's keys signed them by an algorithm fixed for that issuer."""
    try:
        for key in jwks.candidates(jwt.get_unverified_header(token).get("kid")):
            if key.algorithm_name in algorithms:
                try:
                    return jwt.decode(
                        token,
                        key,
                        algorithms=[key.algorithm_name],
                        audience=audience,
                        issuer=issuer,
                        leeway=_LEEWAY_SECONDS,
                        options={"require": ["exp", "iat", "aud", "iss", "sub"]},
                    )
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue  # another key of the set may have signed it
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProblemError("unauthenticated") from error
    raise ProblemError("unauthenticated")
