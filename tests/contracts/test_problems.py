"""The catalogue of problems: one place that knows status, title and whether a retry can help."""

from __future__ import annotations

import re

import pytest

from aiida_byoc.contracts.problems import (
    CATALOGUE,
    PROBLEM_BASE,
    FieldError,
    Problem,
    ProblemError,
)
from aiida_byoc.contracts.validation import validated

FAULT = FieldError(field="resource_shape.cpu", message="is too large", remedy="ask for less")


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=CATALOGUE)
def test_a_kind_of_problem_says_what_is_wrong_and_what_to_do(kind):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
    assert 400 <= kind.status <= 599
    assert kind.title
    assert kind.title[-1] not in ".!"
    assert kind.remedy.endswith(".")
    assert kind.uri == PROBLEM_BASE + kind.name


def test_a_retry_can_cure_what_is_on_our_side_or_too_much_at_a_time_and_nothing_else():
    assert {kind.name for kind in CATALOGUE.values() if kind.retry} == {
        kind.name for kind in CATALOGUE.values() if kind.status >= 500 or kind.status == 429
    }


def test_an_outage_is_503_and_an_unknown_outcome_is_504():
    outages = {kind.name for kind in CATALOGUE.values() if kind.status == 503}

    assert outages == {"product-unavailable", "node-unreachable", "node-failed", "node-draining"}
    assert CATALOGUE["outcome-unknown"].status == 504


def test_one_status_for_each_conflict_of_identity():
    assert CATALOGUE["idempotency-key-reused"].status == 422
    assert CATALOGUE["job-id-conflict"].status == 409
    assert CATALOGUE["job-cancelled"].status == 409


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_problem_survives_the_way_from_node_to_client(name):
    sent = ProblemError(name, "This once.", errors=[FAULT], retry_after=3).problem()

    received = validated(Problem, sent.model_dump(mode="json", exclude_none=True))
    again = ProblemError.of(received)

    assert again.problem() == sent
    assert (again.kind, again.retry_after) == (CATALOGUE[name], 3)


def test_whoever_passes_a_problem_on_may_ask_for_another_pause():
    received = ProblemError("node-failed", retry_after=3).problem()

    assert ProblemError.of(received, retry_after=7).retry_after == 7


@pytest.mark.parametrize("seconds", [0, -1, 86401])
def test_a_pause_is_a_second_to_a_day(seconds):
    with pytest.raises(ValueError, match="retry_after"):
        Problem(type="x", title="T", status=503, detail="d", retry=True, retry_after=seconds)


def test_a_problem_without_a_detail_says_the_remedy():
    assert ProblemError("not-found").problem().detail == CATALOGUE["not-found"].remedy


def test_a_name_outside_the_catalogue_fails_where_it_is_raised():
    with pytest.raises(KeyError):
        ProblemError("teapot")


@pytest.mark.parametrize(
    "type_", ["about:blank", PROBLEM_BASE, PROBLEM_BASE + "teapot", "not-found/.."]
)
def test_a_type_outside_the_catalogue_is_not_passed_on(type_):
    foreign = Problem(
        type=type_, title="T", status=418, detail="internal address 10.0.0.7", retry=False
    )

    ours = ProblemError.of(foreign).problem()

    assert ours == ProblemError("internal-error").problem()


@pytest.mark.parametrize("status", [200, 399, 600])
def test_only_errors_are_problems(status):
    with pytest.raises(ValueError, match="status"):
        Problem(type="x", title="T", status=status, detail="d", retry=False)
