"""Every route of the application, as the application itself tells; a new one is covered by being there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "openapi.json").read_text()
)
LIST = Path(__file__).with_name("routes.txt")
KEY_ID = "k" * 43


class Route(NamedTuple):
    """A route and the credential that opens it: of a `client` with a scope, of a `node`, or none."""

    method: str
    path: str
    credential: str
    scope: str

    def __str__(self) -> str:
        opens = " ".join(part for part in (self.credential, self.scope) if part) or "-"
        return f"{self.method} {self.path} {opens}"

    def url(self, node_id: str, **names: str) -> str:
        """Its path at a node, with names that are good for nothing where none are given."""
        here = {"job_id": "job-1", "command_id": str(uuid4()), "key_id": KEY_ID, **names}
        return self.path.format(node_id=node_id, **here)


def documented() -> list[Route]:
    """The routes of the published document."""
    found = []
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            [(credential, scopes)] = (operation["security"] or [{"": []}])[0].items()
            found.append(Route(method.upper(), path, credential, "".join(scopes)))
    return sorted(found)


def served(app: FastAPI) -> tuple[set[str], list[object]]:
    """What the application serves: its routes as `METHOD path`, and whatever else it would answer to."""
    named, others = set(), []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            named |= {f"{method} {context.path}" for method in context.methods or ()}
        else:
            others.append(route)
    return named, others


ROUTES = documented()
GUARDED = [route for route in ROUTES if route.credential]
OPEN = [route for route in ROUTES if not route.credential]
PATHS = sorted({route.path for route in ROUTES})
