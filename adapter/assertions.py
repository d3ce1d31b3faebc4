"""Assertions (RFC 7523): what a node signs to get an access token, or to show that it holds a key. Good once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

import jwt

from adapter.keys import Algorithm
from adapter.registry import LiveKey
from adapter.tokens import LEEWAY_SECONDS, claimed, header, verified
from aiida_byoc.contracts.enrolment import MAX_ASSERTION_SECONDS
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["NODE_ALGORITHMS", "Assertions"]

NODE_ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "EdDSA")

_MOST_OF_A_NODE = 256
"""Assertions of one node that are remembered at a time; more than any node needs."""

_REMEMBERED_SECONDS = MAX_ASSERTION_SECONDS + 2 * LEEWAY_SECONDS
"""One whose clock is fast by the leeway is believed so long after it was first seen, and no longer."""


class Assertions:
    """Checks assertions, and remembers them for as long as they could be shown again.

    In memory: all of a node's traffic meets one replica. After a restart one could be shown a second time, by who could
    read it on its way through TLS.

    Args:
        audience: whom they must be for.
        clock: seconds that never go back.
    """

    def __init__(self, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._audience = audience
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._count: Counter[str] = Counter()

    def verify(self, token: str, node_id: str, keys: Sequence[LiveKey]) -> LiveKey:
        """The key that signed it.

        Args:
            keys: those that the header's `kid` may mean.

        Raises:
            ProblemError: `unauthenticated`, whatever is wrong; `too-many-requests`.
        """
        key_id = header(token, "kid")
        if claimed(token, "sub") != node_id or not isinstance(key_id, str):
            raise ProblemError("unauthenticated")
        for key in keys:
            if key_id in key.names:
                self._check(token, node_id, key.public)
                return key
        raise ProblemError("unauthenticated")

    def _check(self, token: str, node_id: str, public: jwt.PyJWK) -> None:
        claims, _ = verified(
            token,
            [public],
            NODE_ALGORITHMS,
            issuer=node_id,
            audience=self._audience,
            require=("jti",),
            is_for_us_alone=True,
        )
        name = claims["jti"]
        if not isinstance(name, str) or not (16 <= len(name) <= 64 and name.isascii()):
            raise ProblemError("unauthenticated")
        if float(claims["exp"]) - float(claims["iat"]) > MAX_ASSERTION_SECONDS:
            raise ProblemError("unauthenticated")
        self._use_up(node_id, name)

    def _use_up(self, node_id: str, name: str) -> None:
        now = self._clock()
        while self._seen and next(iter(self._seen.values())) + _REMEMBERED_SECONDS < now:
            (owner, _), _ = self._seen.popitem(last=False)
            self._count[owner] -= 1
            if not self._count[owner]:
                del self._count[owner]
        if (node_id, name) in self._seen:
            raise ProblemError("unauthenticated")
        if self._count[node_id] >= _MOST_OF_A_NODE:
            raise ProblemError(
                "too-many-requests", "The node asks for too many tokens.", retry_after=30
            )
        self._seen[node_id, name] = now
        self._count[node_id] += 1
