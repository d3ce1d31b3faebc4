"""The contract pages execute: examples, field tables, states, problems and codes are those of the code."""

from __future__ import annotations

import inspect
import json
import re

import jsonschema
import pytest
from pydantic import BaseModel

from aiida_byoc.contracts import (
    commands,
    delivery,
    enrolment,
    events,
    logs,
    problems,
    projection,
    receipt,
)
from aiida_byoc.contracts.base import Fact, Order
from aiida_byoc.contracts.failures import FAILURES
from aiida_byoc.contracts.lifecycle import PRODUCT_STATE, SUCCESSORS
from aiida_byoc.contracts.problems import CATALOGUE
from aiida_byoc.contracts.schemas import SURFACES
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import DOCUMENTS, ROOT, refused
from tests.contracts.pages import PAGES, examples, plain, rows_below, section, tables

HEADINGS = [
    "Purpose", "Producer and consumer", "Required and optional fields", "Idempotency key", "Ordering and retry rule",
    "Error semantics", "Tenant and auth boundary", "What to log", "Source of record per field", "Versioning",
    "Examples", "Tests that hold it",
]  # fmt: skip
FIELDS = ["Field", "Type", "Required", "Meaning", "Source of record"]
MODELS = {
    name: model
    for module in (commands, delivery, enrolment, events, logs, problems, projection, receipt)
    for name, model in inspect.getmembers(module, inspect.isclass)
    if issubclass(model, BaseModel) and model not in {Fact, Order}
}
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
SOURCES = "\n".join(
    path.read_text()
    for pattern in ("aiida_byoc/**/*.py", "adapter/**/*.py", "convex/*.ts")
    for path in sorted(ROOT.glob(pattern))
)


@PAGE
def test_every_page_has_the_same_headings_and_none_is_empty(page):
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == HEADINGS
    for heading in HEADINGS:
        assert len(section(page, heading).strip()) > 40, f"{heading} says nothing"


def test_the_three_surfaces_of_the_decision_have_their_pages():
    names = {page.name for page in PAGES}

    assert {
        "command-submit-job.md",
        "event-execution-lifecycle.md",
        "projection-update.md",
    } <= names


def test_the_map_names_every_page_every_heading_and_every_file():
    readme = (DOCUMENTS / "README.md").read_text()

    assert {page.name for page in PAGES} == set(re.findall(r"\[([\w-]+\.md)\]", readme))
    said = re.sub(r"\s+", " ", readme)
    assert " · ".join(HEADINGS) in said


@pytest.mark.parametrize("example", [one for one in examples() if one.field is None], ids=str)
def test_a_valid_example_is_valid(example):
    model = MODELS[example.model]
    for message in example.message if example.many else [example.message]:
        validated(model, message)
        jsonschema.validate(message, model.model_json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("example", [one for one in examples() if one.field], ids=str)
def test_an_invalid_example_is_refused_for_the_field_it_names(example):
    errors = refused(MODELS[example.model], example.message).errors

    assert [error.field for error in errors] == [example.field]


def test_every_json_block_is_an_example():
    blocks = sum(page.read_text().count("```json\n") for page in PAGES)

    assert blocks == len(examples())


def test_every_surface_is_shown():
    shown = {example.model for example in examples()}

    assert {model.__name__ for model in SURFACES.values()} <= shown


@PAGE
def test_every_page_shows_what_is_refused(page):
    assert any(example.field for example in examples() if example.page == page.name)


def test_every_model_has_one_field_table():
    assert set(tables("fields")) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_field_table_is_the_model(name):
    rows = tables("fields")[name]
    fields = {info.alias or field: info for field, info in MODELS[name].model_fields.items()}

    assert list(rows[0]) == FIELDS
    assert [plain(row["Field"]) for row in rows] == list(fields)
    assert {plain(row["Field"]): row["Required"] for row in rows} == {
        field: "yes" if info.is_required() else "no" for field, info in fields.items()
    }
    assert all(row["Meaning"] and row["Source of record"] and row["Type"] for row in rows)


def test_the_life_cycle_is_the_code():
    rows = tables("table")["lifecycle"]

    assert {plain(row["State"]): plain(row["Users see"]) for row in rows} == PRODUCT_STATE
    assert {
        plain(row["State"]): set(re.findall(r"`(\w+)`", row["May go to"])) for row in rows
    } == SUCCESSORS


def test_the_catalogue_is_the_code():
    rows = tables("table")["catalogue"]

    assert [tuple(row.values()) for row in rows] == [
        (f"`{kind.name}`", str(kind.status), "yes" if kind.retry else "no", kind.title, kind.remedy)
        for kind in CATALOGUE.values()
    ]


def declared() -> dict[str, set[str]]:
    """The problems that `docs/openapi.json` declares, by operation."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return {
        operation["operationId"]: {
            name
            for response in operation["responses"].values()
            for name in response.get("content", {})
            .get("application/problem+json", {})
            .get("examples", {})
        }
        for path in document["paths"].values()
        for operation in path.values()
    }


def test_every_route_of_the_contracts_lists_its_problems():
    pages = {
        name: {plain(row["Problem"]) for row in rows} for name, rows in tables("problems").items()
    }
    routes = {name: found for name, found in declared().items() if name not in {"livez", "readyz"}}

    assert pages == routes


def test_every_route_that_is_named_exists():
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    routes = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    named = {
        route
        for page in [*PAGES, DOCUMENTS / "README.md"]
        for route in re.findall(r"`((?:GET|POST) /v1/[^`]+)`", page.read_text())
    }

    assert named == {route for route in routes if "/v1/" in route}


def test_the_rejection_codes_are_the_contracts():
    assert {plain(row["Code"]) for row in tables("table")["rejections"]} == set(
        projection.REJECTIONS
    )


def test_the_quarantine_codes_are_the_products_and_the_adapters():
    adapters = {"validation-failed", "forbidden", "projection-refused"}
    assert '"projection-refused"' in SOURCES

    codes = {plain(row["Code"]) for row in tables("table")["quarantine-codes"]}

    assert codes == set(projection.REJECTIONS) | adapters


def test_the_codes_of_failed_jobs_are_the_catalogue():
    rows = tables("table")["outcome-codes"]

    assert [
        (plain(row["`error.code`"]), row["`retryable`"] == "yes", row["`remedy`"]) for row in rows
    ] == [(failure.code, failure.retryable, failure.remedy) for failure in FAILURES.values()]


def test_every_code_of_the_catalogue_is_told_by_the_node():
    assert [code for code in FAILURES if SOURCES.count(f'"{code}"') < 2] == []


@PAGE
def test_what_is_to_be_logged_is_logged(page):
    for row in rows_below(page, "What to log"):
        event = plain(row["Event"])
        stem = event.partition(".")[0]
        assert event in SOURCES or f'f"{stem}.{{' in SOURCES, f"nothing logs {event}"


@PAGE
def test_the_tests_that_hold_a_page_exist(page):
    named = re.findall(r"`(tests/[\w/.]+)`", section(page, "Tests that hold it"))

    assert "tests/contracts/test_documents.py" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_links_lead_somewhere():
    for page in [*PAGES, DOCUMENTS / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_the_numbers_in_the_pages_are_the_codes():
    """Sizes and times that a stranger builds on."""
    said = {
        "command-submit-job.md": [f"{commands.MAX_COMMAND_BYTES // 1024} KiB"],
        "command-delivery.md": [f"integer 0\N{EN DASH}{delivery.MAX_POLL_SECONDS}"],
        "node-enrolment.md": [
            f"{enrolment.MAX_TOKEN_SECONDS} s at most",
            f"integer 1\N{EN DASH}{enrolment.MAX_TOKEN_SECONDS}",
            f"at most {enrolment.MAX_ASSERTION_SECONDS} s apart",
        ],
        "job-logs.md": [f"integer 1\N{EN DASH}{logs.MAX_LOG_CHUNK}"],
        "event-delivery.md": [f"an array of 1 to {delivery.MAX_EVENT_BATCH}"],
        "projection-update.md": [f"[1..{projection.MAX_PROJECTION_BATCH}]"],
    }
    for page, numbers in said.items():
        for number in numbers:
            assert number in (DOCUMENTS / page).read_text(), f"{page} does not say {number}"
