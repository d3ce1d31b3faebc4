"""What the product's registry promises the adapter, as one story that the fake and the real functions are held to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from tests.service.enrolled import NodeKey

Call = Callable[..., Any]


def play(node_id: str, tenant_id: str, call: Call, secret: Callable[[], str]) -> None:
    """Tell the life of a node.

    Args:
        call: a function of the registry on behalf of this node, by its short name; returns its value.
        secret: a new one-time secret for the node, which its owner asked the product for.
    """
    one, two, three = (NodeKey() for _ in range(3))

    def redeem(key: NodeKey, text: str) -> str:
        secret_hash = hashlib.sha256(text.encode()).hexdigest()
        told = call("redeem", node_id=node_id, secret_hash=secret_hash, key=_named(key))
        assert told.get("tenants") == ([tenant_id] if told["outcome"] == "enrolled" else None)
        return told["outcome"]

    def add(key: NodeKey, by: NodeKey) -> str:
        return call("addKey", node_id=node_id, key=_named(key), by=by.key_id)["outcome"]

    def retire(key: NodeKey, by: NodeKey) -> str:
        args = {"node_id": node_id, "key_id": key.key_id, "by": by.key_id}
        return call("retireKey", **args)["outcome"]

    def revoke(tenant: str) -> str:
        return call("revoke", node_id=node_id, tenant_id=tenant, actor="user-1")["outcome"]

    def live() -> tuple[str, list[str]]:
        told = call("node", node_id=node_id)
        assert (told["node_id"], told["tenants"]) == (node_id, [tenant_id])
        assert all(key["jwk"].keys() == {"kty", "crv", "x"} for key in told["keys"])
        return told["state"], [key["key_id"] for key in told["keys"]]

    assert call("node", node_id=node_id) is None
    first = secret()
    assert live() == ("active", [])
    assert redeem(one, "x" * 43) == "refused"
    assert [redeem(one, first), redeem(one, first), redeem(two, first)] == [
        "enrolled",
        "enrolled",
        "refused",
    ]
    assert live() == ("active", [one.key_id])

    assert add(two, by=three) == "unknown"
    assert [add(two, by=one), add(two, by=one), add(three, by=one)] == [
        "added",
        "present",
        "too_many",
    ]
    assert live() == ("active", [one.key_id, two.key_id])
    assert [retire(three, by=one), retire(one, by=three)] == ["absent", "unknown"]
    assert [retire(one, by=two), retire(one, by=two), retire(two, by=two)] == [
        "retired",
        "absent",
        "last",
    ]
    assert live() == ("active", [two.key_id])

    assert revoke("somebody-else") == "unknown"
    assert [revoke(tenant_id), revoke(tenant_id)] == ["revoked", "revoked"]
    assert live() == ("revoked", [])
    assert [add(three, by=two), retire(two, by=two)] == ["unknown", "unknown"]
    assert redeem(one, first) == "refused"
    assert redeem(one, secret()) == "enrolled"
    assert live() == ("active", [one.key_id])
    assert call("serviceToken", hash="0" * 64) is None


def _named(key: NodeKey) -> dict[str, Any]:
    return {"key_id": key.key_id, "jwk": key.jwk}
