"""The published document is complete, current, and says of every problem where it may occur."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from adapter.app import create_app
from adapter.openapi import openapi_text
from aiida_byoc.contracts import schemas
from aiida_byoc.contracts.problems import CATALOGUE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def document(make_settings):
    return create_app(make_settings()).openapi()


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def problems(operation) -> set[str]:
    return {
        name
        for response in operation["responses"].values()
        for name in response.get("content", {})
        .get("application/problem+json", {})
        .get("examples", {})
    }


def test_the_file_in_docs_is_current():
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi_text()


def test_every_reference_resolves(document):
    def references(part):
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for item in part.values():
                yield from references(item)
        elif isinstance(part, list):
            for item in part:
                yield from references(item)

    found = set(references(document))
    assert len(found) > 30
    for reference in found:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_requests_are_the_contracts(document):
    """What a client reads here is, word for word, what the adapter validates."""
    for surface in ("submit-job-command.v1", "cancel-job-command.v1", "heartbeat.v1", "verdict.v1"):
        model = schemas.SURFACES[surface]
        contract = model.model_json_schema(ref_template="#/components/schemas/{model}")
        contract.pop("$defs", None)
        assert document["components"]["schemas"][model.__name__] == contract


def test_every_problem_of_the_catalogue_has_its_place(document):
    declared = set().union(*(problems(operation) for operation in operations(document).values()))

    assert declared == set(CATALOGUE) - {"method-not-allowed"}
    assert "method-not-allowed" in document["info"]["description"]


def test_every_problem_the_adapter_raises_is_declared(document):
    """Reads the sources: a name that no route declares, or one that is not in the catalogue, fails here."""
    raised = {
        call.args[0].value
        for path in (ROOT / "adapter").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "ProblemError"
        and isinstance(call.args[0], ast.Constant)
    }
    declared = set().union(*(problems(operation) for operation in operations(document).values()))

    assert len(raised) > 10
    assert raised - declared == {"method-not-allowed"}


def test_every_route_says_who_may_call_it_and_what_can_go_wrong(document):
    bring_their_own = {
        "POST /v1/nodes:enroll": {"enrolment-refused"},
        "POST /v1/nodes/{node_id}/token": {"unauthenticated"},
    }
    for name, operation in operations(document).items():
        open_to_all = name in {"GET /livez", "GET /readyz"}
        assert bool(operation["security"]) is not (open_to_all or name in bring_their_own), name
        refusals = bring_their_own.get(name, {"unauthenticated", "not-found"})
        assert open_to_all or refusals <= problems(operation), name
        assert "internal-error" in problems(operation), name


def test_headers_are_declared_where_they_matter(document):
    submit = operations(document)["POST /v1/nodes/{node_id}/jobs"]

    assert {"Location", "Idempotency-Replayed"} <= submit["responses"]["202"]["headers"].keys()
    assert "WWW-Authenticate" in submit["responses"]["401"]["headers"]
    assert "Retry-After" in submit["responses"]["503"]["headers"]
    [key] = [item for item in submit["parameters"] if item["name"] == "Idempotency-Key"]
    assert key["required"] is True
