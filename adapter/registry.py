"""Who a node is: what the settings declare by hand, else what the product says, at most a minute old."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import jwt

from adapter.caching import Allowance, Cached
from adapter.product import Product, RegisteredNode
from adapter.settings import NodeSettings
from aiida_byoc.contracts.enrolment import thumbprint
from aiida_byoc.contracts.identity import NAME

__all__ = ["LiveKey", "Node", "Registry"]

_UNKNOWN_SECONDS = 10.0
_MOST_NODES = 10_000
_NEWER_SECONDS = 5.0
_STRANGERS_A_SECOND = 20.0
_STRANGERS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key that a node signs with now.

    Attributes:
        key_id: its thumbprint (RFC 7638).
        names: what a token's `kid` may call it.
        added_at: when the product learnt it; `None` for one of the settings.
    """

    key_id: str
    names: frozenset[str]
    public: jwt.PyJWK
    added_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node with the tenants it serves and its live keys; none while it may not speak.

    Attributes:
        is_declared: whether it stands in the adapter's settings, which nobody changes over the wire.
    """

    node_id: str
    tenants: frozenset[str]
    keys: tuple[LiveKey, ...]
    is_revoked: bool = False
    is_declared: bool = False

    def candidates(self, kid: object) -> list[LiveKey]:
        """The live keys that a token with this `kid` may be signed with; without one, all of them."""
        return [key for key in self.keys if kid is None or kid in key.names]

    def has(self, key_id: str) -> bool:
        """Whether a key is live, by its thumbprint."""
        return any(key.key_id == key_id for key in self.keys)


class Registry:
    """Finds nodes.

    Args:
        declared: nodes of the settings; the product is not asked about them.
        product: `None` when nobody else is to be known.
        seconds: how long an answer of the product counts; it is asked again after half of that.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        declared: Mapping[str, NodeSettings],
        product: Product | None,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._declared = {name: _declared(name, node) for name, node in declared.items()}
        self._cached: Cached[str, Node] | None = None
        if product is not None:
            self._cached = Cached(
                lambda node_id: _asked(product, node_id),
                seconds=seconds,
                unknown_seconds=_UNKNOWN_SECONDS,
                most=_MOST_NODES,
                strangers=Allowance(
                    rate=_STRANGERS_A_SECOND, burst=_STRANGERS_AT_ONCE, clock=clock
                ),
                clock=clock,
            )

    async def find(self, node_id: str, *, anew: bool = False) -> Node | None:
        """The node of this name, or `None`.

        Args:
            anew: whether an answer of the last few seconds is wanted, because the caller met something new.

        Raises:
            ProblemError: `product-unavailable` when only the product could say, and cannot.
        """
        node = self._declared.get(node_id)
        if node is not None or self._cached is None or not re.fullmatch(NAME, node_id):
            return node
        return await self._cached.get(node_id, at_most=_NEWER_SECONDS if anew else None)

    def is_declared(self, node_id: str) -> bool:
        """Whether the settings declare this node."""
        return node_id in self._declared

    def forget(self, node_id: str) -> None:
        """The product has been told something of the node: ask again, also whoever waits for changes."""
        if self._cached is not None:
            self._cached.forget(node_id)

    async def until_due(self, node_id: str) -> None:
        """Wait until `find` may answer otherwise than it did; for ever, for what the settings declare."""
        if self._cached is None or node_id in self._declared:
            await asyncio.Event().wait()
        else:
            await self._cached.until_due(node_id)


async def _asked(product: Product, node_id: str) -> Node | None:
    told = await product.node(node_id)
    return None if told is None else _registered(told)


def _registered(told: RegisteredNode) -> Node:
    is_revoked = told.state == "revoked"
    return Node(
        told.node_id,
        frozenset(told.tenants),
        () if is_revoked else tuple(_live(key.jwk.model_dump(), key.added_at) for key in told.keys),
        is_revoked=is_revoked,
    )


def _declared(name: str, node: NodeSettings) -> Node:
    keys = tuple(_live(key) for key in node.jwks.keys)
    return Node(name, frozenset(node.tenants), keys, is_declared=True)


def _live(jwk: dict[str, str], added_at: datetime | None = None) -> LiveKey:
    key_id = thumbprint(jwk)
    names = {key_id, jwk["kid"]} if isinstance(jwk.get("kid"), str) else {key_id}
    return LiveKey(key_id, frozenset(names), jwt.PyJWK(jwk), added_at)
