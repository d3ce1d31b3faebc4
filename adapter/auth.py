"""Who is asking: a client bound to a tenant, or a node. Every refusal looks the same."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Request

from adapter.assertions import NODE_ALGORITHMS
from adapter.clients import ClientIdentity, Issuers, OpaqueTokens
from adapter.registry import LiveKey, Node, Registry
from adapter.tokens import LEEWAY_SECONDS, AccessTokens, bearer, claimed, header, verified
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["ClientGuard", "ClientIdentity", "NodeGuard", "NodeIdentity"]

_LONGEST_OF_A_NODE = 600
"""Life of a token that a node signed itself and shows as it is, as agents before access tokens do, in seconds."""
_MOST_VERIFIED = 10_000


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A management node, the tenants it serves, and the key (its thumbprint) that it speaks by."""

    node_id: str
    tenants: frozenset[str]
    key_id: str


@dataclass(frozen=True, slots=True)
class _Verified:
    """A node's token that was taken: a node sends the same for minutes, and what may change is looked at each time.

    Attributes:
        expires_at: seconds since the epoch.
        is_long: signed by the node itself for longer than an agent does: good for a declared node only.
    """

    node_id: str
    key_id: str
    expires_at: float
    is_long: bool = False


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
        self._known: OrderedDict[str, _Verified] = OrderedDict()

    async def admit(self, request: Request, node_id: str) -> NodeIdentity:
        """Return the node.

        Raises:
            ProblemError: `unauthenticated`, then `not-found` when the path is another's; `product-unavailable` where
                only the product could say.
        """
        token = bearer(request)
        known = self._known.get(token)
        node = await self._taken_still(known) if known is not None else None
        if known is None or node is None:
            by = self._by_access_token if self._tokens.is_ours(token) else self._by_itself
            node, known = await by(token)
            self._known[token] = known
            if len(self._known) > _MOST_VERIFIED:
                self._known.popitem(last=False)
        if node_id != node.node_id:
            raise ProblemError("not-found")
        return NodeIdentity(node.node_id, node.tenants, known.key_id)

    async def until_refused(self, node: NodeIdentity) -> None:
        """Wait until the node may not speak by its key any more; then raise what `admit` would."""
        while True:
            await self._registry.until_due(node.node_id)
            now = await self._registry.find(node.node_id)
            if now is None or not now.has(node.key_id):
                raise ProblemError("unauthenticated")

    async def _taken_still(self, known: _Verified) -> Node | None:
        """The node, if its token would be taken again: its key is live, and its time is not over."""
        if int(known.expires_at) <= time.time() - LEEWAY_SECONDS:
            return None
        node = await self._registry.find(known.node_id)
        if node is None or not node.has(known.key_id) or (known.is_long and not node.is_declared):
            return None
        return node

    async def _by_access_token(self, token: str) -> tuple[Node, _Verified]:
        holder, expires_at = self._tokens.verify(token)
        node = await self._registry.find(holder.node_id)
        if node is not None and not node.has(holder.key_id):
            # Another replica may have given the token for a key that was added a moment ago.
            node = await self._registry.find(holder.node_id, anew=True)
        if node is None or not node.has(holder.key_id):
            raise ProblemError("unauthenticated")
        return node, _Verified(node.node_id, holder.key_id, expires_at)

    async def _by_itself(self, token: str) -> tuple[Node, _Verified]:
        name, kid = claimed(token, "iss"), header(token, "kid")
        node = await self._registry.find(name)
        if node is not None and not node.candidates(kid):
            node = await self._registry.find(name, anew=True)
        for key in node.candidates(kid) if node is not None else ():
            if node is not None and (taken := self._signed(token, name, key, node)) is not None:
                return node, taken
        raise ProblemError("unauthenticated")

    def _signed(self, token: str, name: str, key: LiveKey, node: Node) -> _Verified | None:
        try:
            claims, _ = verified(
                token, [key.public], NODE_ALGORITHMS, issuer=name, audience=self._audience
            )
        except ProblemError:
            return None
        # What an operator declared by hand may also sign by hand, for longer.
        is_long = float(claims["exp"]) - float(claims["iat"]) > _LONGEST_OF_A_NODE
        if claims["sub"] != name or (is_long and not node.is_declared):
            return None
        return _Verified(name, key.key_id, float(claims["exp"]), is_long)
