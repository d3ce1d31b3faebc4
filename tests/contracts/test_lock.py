"""A version keeps its promises: golden messages are only added, another meaning needs another version and page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from aiida_byoc.contracts import lock
from aiida_byoc.contracts.base import Fact, Order
from aiida_byoc.contracts.delivery import PollRequest
from aiida_byoc.contracts.problems import CATALOGUE
from aiida_byoc.contracts.projection import ProjectionOutcome
from aiida_byoc.contracts.schemas import SURFACES
from tests.contracts.messages import DOCUMENTS

BEFORE = json.loads((DOCUMENTS / lock.LOCK).read_text())


def test_every_promise_is_kept_and_every_new_one_is_recorded():
    now = lock.promises(DOCUMENTS)

    assert lock.broken(BEFORE, now, frozenset(each["field"] for each in BEFORE["widened"])) == []
    assert lock.stale(BEFORE, now) == []


@pytest.fixture
def documents(tmp_path) -> Path:
    shutil.copytree(DOCUMENTS, tmp_path / "contracts")
    return tmp_path / "contracts"


def refused(documents: Path, capsys, *arguments: str) -> list[str]:
    """The sentences that the command refuses with; it writes nothing then."""
    kept = (documents / lock.LOCK).read_text()
    assert lock.main([str(documents), *arguments]) == 1
    assert (documents / lock.LOCK).read_text() == kept
    return capsys.readouterr().err.splitlines()


def reword(documents: Path, page: str, old: str, new: str) -> None:
    path = documents / page
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_golden_message_is_never_changed(documents, capsys):
    golden = documents / "examples" / "heartbeat.v1.json"
    golden.write_text(golden.read_text().replace("0.1.0", "0.2.0"))

    [sentence] = refused(documents, capsys)

    assert sentence.startswith(
        "examples/heartbeat.v1.json was changed, but golden messages are only ever added: restore"
    )


def test_a_golden_message_is_never_deleted(documents, capsys):
    (documents / "examples" / "heartbeat.v1.json").unlink()

    [sentence] = refused(documents, capsys)

    assert sentence.startswith("examples/heartbeat.v1.json was deleted")
    assert "new version" in sentence


def test_a_new_golden_message_is_recorded_by_the_command(documents):
    shutil.copy(
        documents / "examples" / "heartbeat.v1.json",
        documents / "examples" / "heartbeat.new.v1.json",
    )

    [sentence] = lock.stale(BEFORE, lock.promises(documents))
    assert sentence.startswith("goldens heartbeat.new.v1.json is not in docs/contracts/lock.json")
    assert sentence.endswith(lock.COMMAND)
    assert lock.main([str(documents)]) == 0
    assert (
        lock.stale(json.loads((documents / lock.LOCK).read_text()), lock.promises(documents)) == []
    )


class Waits(Order):
    """A PollRequest that may wait longer, and says no `max_commands`."""

    wait_seconds: Annotated[int, Field(ge=0, le=60)] = 30
    operations: Annotated[list[str], Field(max_length=32)] = []


class Needs(PollRequest):
    """A PollRequest with a further field that must be there."""

    shard: int


class Offers(PollRequest):
    """A PollRequest with a further field that may be there."""

    shard: int = 0


class Patient(PollRequest):
    """A PollRequest that accepts all that it did, and more."""

    wait_seconds: Annotated[int, Field(ge=0, le=60)] = 30


class Outcome(ProjectionOutcome):
    """Another type."""

    code: int | None = None  # type: ignore[assignment]


def instead(monkeypatch, surface: str, model: type[Fact | Order]) -> None:
    monkeypatch.setitem(SURFACES, surface, model)
    model.__name__ = {
        "poll-request.v1": "PollRequest",
        "projection-outcome.v1": "ProjectionOutcome",
    }[surface]


def test_a_field_keeps_what_it_accepts(documents, capsys, monkeypatch):
    instead(monkeypatch, "projection-outcome.v1", Outcome)

    meaning, page = refused(documents, capsys)

    assert meaning.startswith(
        "ProjectionOutcome.code accepts something else than this version says: leave it as it was"
    )
    assert "or give its surface a new version" in meaning
    assert (
        page
        == "ProjectionOutcome.code accepts something else, and its page says what it said before: correct its row"
    )


def test_a_field_is_never_removed(documents, capsys, monkeypatch):
    instead(monkeypatch, "poll-request.v1", Waits)

    sentences = refused(documents, capsys)

    assert any(
        one.startswith("PollRequest.max_commands was removed: leave it") for one in sentences
    )


def test_a_new_field_is_optional(documents, capsys, monkeypatch):
    instead(monkeypatch, "poll-request.v1", Needs)

    [sentence] = refused(documents, capsys)

    assert sentence.startswith(
        "PollRequest.shard is new and required: make it optional, or give its surface a new version"
    )
    instead(monkeypatch, "poll-request.v1", Offers)
    assert lock.main([str(documents)]) == 0


def test_what_is_widened_needs_its_page_and_a_reason(documents, capsys, monkeypatch):
    instead(monkeypatch, "poll-request.v1", Patient)
    reason = "PollRequest.wait_seconds=adapters of this version cut it to 30"

    [page] = refused(documents, capsys, "--widened", reason)
    assert page.startswith("PollRequest.wait_seconds accepts something else, and its page")

    reword(documents, "command-delivery.md", "integer 0\N{EN DASH}30", "integer 0\N{EN DASH}60")
    assert lock.main([str(documents), "--widened", reason]) == 0
    kept = json.loads((documents / lock.LOCK).read_text())["widened"]
    assert kept[-1] == {
        "field": "PollRequest.wait_seconds",
        "why": "adapters of this version cut it to 30",
    }
    with pytest.raises(SystemExit):
        lock.main([str(documents), "--widened", "PollRequest.wait_seconds"])


def test_a_row_that_is_worded_anew_is_looked_at(documents):
    reword(
        documents,
        "command-delivery.md",
        "oldest first; empty when the wait ended without one",
        "oldest first",
    )

    [sentence] = lock.stale(BEFORE, lock.promises(documents))

    assert sentence.startswith("fields CommandBatch.commands is not in")


def test_a_problem_keeps_its_status_for_ever(documents, capsys, monkeypatch):
    left = {name: kind for name, kind in CATALOGUE.items() if name != "job-cancelled"}
    monkeypatch.setattr(lock, "CATALOGUE", left)

    [sentence] = refused(documents, capsys)

    assert sentence.startswith(
        "the problem job-cancelled was `409 retry=False` and is `gone`: leave it as it was"
    )
