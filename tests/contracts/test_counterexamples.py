"""What must be refused, in any language: tests/convex/contracts.test.ts reads the same files."""

from __future__ import annotations

import json

import pytest

from tests.contracts.messages import DOCUMENTS, MODELS, refused

FILES = sorted((DOCUMENTS / "counterexamples").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_counterexample_is_refused_where_it_is_at_fault(path):
    case = json.loads(path.read_text())
    assert case.keys() == {"why", "at", "keyword", "message"}

    errors = refused(MODELS[path.name.partition(".")[0]], case["message"]).errors

    at = case["at"].removeprefix("/").replace("/", ".")
    assert len(errors) == 1
    assert errors[0].field.startswith(at)
    if not at:
        assert "." not in errors[0].field


def test_every_surface_of_the_decision_has_counterexamples():
    surfaces = {path.name.partition(".")[0] for path in FILES}

    assert {
        "submit-job-command",
        "cancel-job-command",
        "execution-event",
        "projection-update",
    } <= surfaces
