"""Who is asking: a client bound to a tenant, or a node. Every refusal looks the same."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from adapter.assertions import NODE_ALGORITHMS
from adapter.clients import ClientIdentity, Issuers, OpaqueTokens
from adapter.registry import LiveKey, Node, Registry
from adapter.tokens import AccessTokens, bearer, claimed, header, verified
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["ClientGuard", "ClientIdentity", "NodeGuard", "NodeIdentity"]

_LONGEST_OF_A_NODE = 600
"""Life of a token that a node signed itself and shows as it is, as agents before access tokens do, in seconds."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A management node, the tenants it serves, and the key (its thumbprint) that it speaks by."""

    node_id: str
    tenants: frozenset[str]
    key_id: str


class ClientGuard:
    """Lets clients in: known credential, scope for the route, node that serves the tenant."""

    def __init__(self, issuers: Issuers, opaque: OpaqueTokens, registry: Registry) -> None:
        self._issuers, self._opaque, self._registry = issuers, opaque, registry

    async def admit(self, request: Request, node_id: str, *, scope: str) -> ClientIdentity:
        """Return the client.

        Raises:
            ProblemError: `unauthenticated`, `forbidden`, `not-found`, in this order; `product-unavailable` where only
                the product could say.
        """
        token = bearer(request)
        who = self._opaque if self._opaque.are_like(token) else self._issuers
        client = await who.identify(token)
        if scope not in client.scopes:
            raise ProblemError(
                "forbidden", f"The credential does not allow this: it needs the scope {scope}."
            )
        node = await self._registry.find(node_id)
        if node is None or client.tenant_id not in node.tenants:
            raise ProblemError("not-found")
        return client


class NodeGuard:
    """Lets nodes in: access token for a live key of the node, or its own signature, at the node's own path."""

    def __init__(self, registry: Registry, tokens: AccessTokens, audience: str) -> None:
        self._registry, self._tokens, self._audience = registry, tokens, audience

    async def admit(self, request: Request, node_id: str) -> NodeIdentity:
        """Return the node.

        Raises:
            ProblemError: `unauthenticated`, then `not-found` when the path is another's; `product-unavailable` where
                only the product could say.
        """
        token = bearer(request)
        node, key_id = await (
            self._by_access_token(token) if self._tokens.is_ours(token) else self._by_itself(token)
        )
        if node_id != node.node_id:
            raise ProblemError("not-found")
        return NodeIdentity(node.node_id, node.tenants, key_id)

    async def until_refused(self, node: NodeIdentity) -> None:
        """Wait until the node may not speak by its key any more; then raise what `admit` would."""
        while True:
            await self._registry.until_due(node.node_id)
            now = await self._registry.find(node.node_id)
            if now is None or not now.has(node.key_id):
                raise ProblemError("unauthenticated")

    async def _by_access_token(self, token: str) -> tuple[Node, str]:
        holder = self._tokens.verify(token)
        node = await self._registry.find(holder.node_id)
        if node is not None and not node.has(holder.key_id):
            # Another replica may have given the token for a key that was added a moment ago.
            node = await self._registry.find(holder.node_id, anew=True)
        if node is None or not node.has(holder.key_id):
            raise ProblemError("unauthenticated")
        return node, holder.key_id

    async def _by_itself(self, token: str) -> tuple[Node, str]:
        name, kid = claimed(token, "iss"), header(token, "kid")
        node = await self._registry.find(name)
        if node is not None and not node.candidates(kid):
            node = await self._registry.find(name, anew=True)
        for key in node.candidates(kid) if node is not None else ():
            if node is not None and self._signed(token, name, key, node):
                return node, key.key_id
        raise ProblemError("unauthenticated")

    def _signed(self, token: str, name: str, key: LiveKey, node: Node) -> bool:
        try:
            claims, _ = verified(
                token, [key.public], NODE_ALGORITHMS, issuer=name, audience=self._audience
            )
        except ProblemError:
            return False
        # What an operator declared by hand may also sign by hand, for longer.
        is_short = float(claims["exp"]) - float(claims["iat"]) <= _LONGEST_OF_A_NODE
        return claims["sub"] == name and (is_short or node.is_declared)
