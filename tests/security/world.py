"""Two tenants, their nodes and everybody's credentials, wrong ones above all.

Tenant `globex` is the victim's neighbour: the credentials that are right are globex's, for its nodes `n2` (which the
settings declare) and `own` (which enrolled). Everything of `acme` is foreign.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import httpx
import jwt

from tests.service.enrolled import NodeKey, access_token
from tests.service.fake_convex import FakeConvex
from tests.service.keys import SCOPES, Keys, hs256_with_the_public_key

UNAUTHENTICATED = (401, "unauthenticated")
FORBIDDEN = (403, "forbidden")
NOT_FOUND = (404, "not-found")

Wrong = dict[str, tuple[str | None, tuple[int, str]]]
"""Name of a credential: the header's value, and the problem that it meets."""


class World:
    """Attributes: nodes `own`, `other` (acme's) and `revoked`, each with its key; `late` opened `revoked` once."""

    def __init__(self, http: httpx.Client, convex: FakeConvex, keys: Keys) -> None:
        self.http, self.keys, self.registry = http, keys, convex.registry
        self.own, self.own_key = self._enrol("globex")
        self.other, self.other_key = self._enrol("acme")
        self.revoked, self.revoked_key = self._enrol("globex")
        self.late = self.access(self.revoked, self.revoked_key)
        http.post(f"/v1/nodes/{self.revoked}/revoke", headers=self.client()).raise_for_status()

    def _enrol(self, tenant: str) -> tuple[str, NodeKey]:
        node_id, key = f"node-{uuid4()}", NodeKey()
        self.registry.enrol(node_id, key.key_id, key.jwk, tenant)
        return node_id, key

    def access(self, node_id: str, key: NodeKey) -> str:
        """An access token."""
        return access_token(self.http, node_id, key)

    def client(self, tenant: str = "globex", **changes: Any) -> dict[str, str]:
        """The header of a client that may do everything for its tenant."""
        return {"Authorization": f"Bearer {self.keys.client(tenant, **changes)}"}

    def right(self, credential: str) -> dict[str, tuple[str, str]]:
        """Who may come in, by name: at which node, with which token."""
        if credential == "client":
            service = self.registry.service_token("globex", *SCOPES.split(" "))
            return {
                "client": ("n2", self.keys.client("globex")),
                "client at an enrolled node": (self.own, self.keys.client("globex")),
                "service token": (self.own, service),
            }
        return {
            "self-signed by the declared": ("n2", self.keys.node("n2")),
            "self-signed by the enrolled": (self.own, self.own_key.assertion(self.own)),
            "access token": (self.own, self.access(self.own, self.own_key)),
        }

    def wrong(self, credential: str, scope: str) -> Wrong:
        """Everything that must not open a route of globex's node `own`, nor of `n2`."""
        of_tokens = self._wrong_tokens(credential)
        of_kind = (
            self._wrong_of_clients(scope) if credential == "client" else self._wrong_of_nodes()
        )
        tokens = {name: f"Bearer {token}" for name, token in {**of_tokens, **of_kind}.items()}
        malformed: dict[str, str | None] = {
            "none": None,
            "empty": "",
            "scheme alone": "Bearer",
            "junk": "Bearer junk",
            "two parts": "Bearer a.b",
            "three parts of nothing": "Bearer a.b.c",
            "beyond ASCII": "Bearer \xfc",
            "two tokens": f"Bearer {self.keys.client('globex')}, {self.keys.node('n2')}",
            "basic": "Basic dXNlcjpwYXNz",
            "without a scheme": self.keys.client("globex"),
            "endless": f"Bearer {'x' * 9000}",
        }
        return {
            name: (value, self._expected(name)) for name, value in {**malformed, **tokens}.items()
        }

    @staticmethod
    def _expected(name: str) -> tuple[int, str]:
        if name.endswith("without the scope"):
            return FORBIDDEN
        return NOT_FOUND if name.startswith("another") else UNAUTHENTICATED

    def _wrong_tokens(self, credential: str) -> dict[str, str]:
        """What is wrong with a token itself."""
        is_client = credential == "client"
        mint, name = (self.keys.client, "globex") if is_client else (self.keys.node, "n2")
        key, now = "product" if is_client else "n2", int(time.time())
        genuine = mint(name)
        claims = jwt.decode(genuine, options={"verify_signature": False})
        head, body, signature = genuine.split(".")
        return {
            "expired": mint(name, iat=now - 700, exp=now - 100),
            "not yet valid": mint(name, nbf=now + 100),
            "not yet issued": mint(name, iat=now + 100),
            "without an end": mint(name, exp=None),
            "for another audience": mint(name, aud="convex"),
            "of another issuer": mint(name, iss="https://elsewhere.example"),
            "of the adapter itself": mint(name, iss="https://adapter.example"),
            "by a stranger's key": mint(name, key="stranger"),
            "unsigned": jwt.encode(claims, None, "none"),
            "unsigned with a signature": jwt.encode(claims, None, "none") + signature,
            "signature cut off": f"{head}.{body}.",
            "signature altered": f"{head}.{body}.{signature[::-1]}",
            "hs256 with the public key": hs256_with_the_public_key(self.keys, key, claims),
        }

    def _wrong_of_clients(self, scope: str) -> dict[str, str]:
        give = self.registry.service_token
        gone = give("globex", *SCOPES.split(" "))
        self.registry.revoke_token(gone)
        others = [one for one in SCOPES.split(" ") if one != scope]
        return {
            "another tenant's client": self.keys.client("acme"),
            "another tenant's service token": give("acme", *SCOPES.split(" ")),
            "client without the scope": self.keys.client("globex", scope=" ".join(others)),
            "service token without the scope": give("globex", *others),
            "service token without any without the scope": give("globex"),
            "client of no tenant": self.keys.client("globex", tenant_id=""),
            "client of two tenants": self.keys.client("globex", tenant_id=["globex", "acme"]),
            "service token of nobody": f"byoc_st_{'x' * 43}",
            "service token cut off": give("globex", *SCOPES.split(" "))[:-1],
            "revoked service token": gone,
            "expired service token": give("globex", *SCOPES.split(" "), seconds=-1),
            "a node's own signature": self.own_key.assertion(self.own),
            "a declared node's token": self.keys.node("n2"),
            "a node's access token": self.access(self.own, self.own_key),
        }

    def _wrong_of_nodes(self) -> dict[str, str]:
        forged = {"kid": self.own_key.key_id}
        return {
            "another node's token": self.keys.node("n1"),
            "another node's signature": self.other_key.assertion(self.other),
            "another node's access token": self.access(self.other, self.other_key),
            "a revoked node's access token": self.late,
            "a revoked node's signature": self.revoked_key.assertion(self.revoked),
            "a stranger's signature in its name": NodeKey().assertion(self.own, head=forged),
            "a node that nobody knows": NodeKey().assertion("node-of-nobody"),
            "a client's token": self.keys.client("globex"),
            "a service token": self.registry.service_token("globex", *SCOPES.split(" ")),
        }
