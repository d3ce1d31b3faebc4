"""The kit as a program: what it prints, how it ends, and that every MUST stands in a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiida_byoc.contracts.conformance import __main__ as kit
from aiida_byoc.contracts.conformance.adapter import ANSWERS
from aiida_byoc.contracts.conformance.adapter_commands import ABSENT, COMMANDS
from aiida_byoc.contracts.conformance.adapter_events import EVENTS
from aiida_byoc.contracts.conformance.adapter_walls import WALLS
from aiida_byoc.contracts.conformance.musts import Broken, Musts, NotTested, hold
from aiida_byoc.contracts.conformance.node import REQUESTS
from aiida_byoc.contracts.conformance.node_commands import COMMANDS as NODE_COMMANDS
from aiida_byoc.contracts.conformance.node_events import EVENTS as NODE_EVENTS
from aiida_byoc.contracts.conformance.node_events import came_next
from aiida_byoc.contracts.conformance.receiver import RECEIVER
from tests.contracts.messages import DOCUMENTS, ROOT

ROLES = {
    "adapter": [ABSENT, COMMANDS, WALLS, EVENTS, ANSWERS],
    "receiver": [RECEIVER],
    "node": [NODE_COMMANDS, NODE_EVENTS, REQUESTS],
}


@pytest.mark.parametrize("role", ROLES)
def test_every_must_has_a_name_of_its_own_and_stands_in_a_page(role):
    musts = [each for group in ROLES[role] for each in group]

    assert len({name for name, _ in musts}) == len(musts)
    for name, where in musts:
        page, _, anchor = where.partition("#")
        headings = re.findall(r"^#+ (.+)$", (DOCUMENTS / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert anchor in anchors, f"{name}: {page} has no heading {anchor}"


TRIED: Musts[None] = Musts()


@TRIED.must("one.kept", "errors.md#purpose")
def kept(_: None) -> str:
    """It is so."""
    return "seen"


@TRIED.must("one.broken", "errors.md#purpose")
def broken(_: None) -> None:
    """It is
    not so."""
    hold(False, "seen otherwise")


@TRIED.must("one.unheard", "errors.md#purpose")
def unheard(_: None) -> None:
    """Nobody answers."""
    raise ConnectionRefusedError("no")


@TRIED.must("one.untested", "errors.md#purpose")
def untested(_: None) -> None:
    """It cannot be known."""
    raise NotTested("give more")


def test_what_becomes_of_a_must():
    findings = list(TRIED.try_all(None))

    assert [(each.must, each.verdict) for each in findings] == [
        ("one.kept", "kept"),
        ("one.broken", "broken"),
        ("one.unheard", "broken"),
        ("one.untested", "not tested"),
    ]
    assert (findings[1].says, findings[1].evidence) == ("It is not so.", "seen otherwise")
    assert "ConnectionRefusedError" in findings[2].evidence
    lacking = list(TRIED.try_all(None, lacks="give all"))
    assert {(each.verdict, each.evidence) for each in lacking} == {("not tested", "give all")}
    with pytest.raises(Broken):
        hold(None, "no")


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "settings.json"
    path.write_text('{"tenant_id": "acme", "nodes": [{"node_id": "n1", "service_token": "x"}]}')
    return str(path)


def test_the_command_prints_a_table_and_fails_when_a_must_is_broken(settings, capsys, monkeypatch):
    monkeypatch.setattr(kit, "try_receiver", lambda *_: TRIED.try_all(None))

    assert kit.main(["--receiver", "http://127.0.0.1:1", "--settings", settings]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["MUST", "verdict", "says", "evidence"]
    assert lines[2].split(maxsplit=3) == [
        "one.broken",
        "broken",
        "errors.md#purpose",
        "seen otherwise",
    ]
    assert lines[-1] == "1 kept, 2 broken, 1 not tested"


def test_the_command_prints_json_and_succeeds_when_none_is_broken(settings, capsys, monkeypatch):
    whole: Musts[None] = Musts()
    whole.must("one.kept", "errors.md#purpose")(kept)
    monkeypatch.setattr(kit, "try_receiver", lambda *_: whole.try_all(None))

    assert kit.main(["--receiver", "http://127.0.0.1:1", "--settings", settings, "--json"]) == 0

    [finding] = json.loads(capsys.readouterr().out)
    assert finding == {
        "must": "one.kept",
        "says": "It is so.",
        "where": "errors.md#purpose",
        "verdict": "kept",
        "evidence": "seen",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"tenant_id": "acme", "nodes": []}', "nodes: List should have at least 1 item"),
        (
            '{"tenant_id": "acme", "nodes": [{"node_id": "n1"}]}',
            "nodes.0.service_token: Field required",
        ),
        ("{", "Invalid JSON"),
        (None, "No such file"),
    ],
)
def test_settings_that_cannot_be_used_name_the_field(content, words, settings, capsys):
    if content is None:
        Path(settings).unlink()
    else:
        Path(settings).write_text(content)

    assert kit.main(["--receiver", "http://127.0.0.1:1", "--settings", settings]) == 2
    assert words in capsys.readouterr().err


def test_an_adapter_that_is_not_there_is_no_adapter(tmp_path):
    path = tmp_path / "adapter.json"
    known = {"node_id": "n1", "node_token": "x", "tenant_id": "acme", "client_token": "x"}
    path.write_text(json.dumps(known))
    command = [
        sys.executable,
        "-m",
        "aiida_byoc.contracts.conformance",
        "--adapter",
        "http://127.0.0.1:1",
    ]

    ended = subprocess.run(
        [*command, "--settings", path], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Connection refused" in ended.stderr


@pytest.mark.parametrize(
    ("batches", "of_them"),
    [
        (["other 1", "mine 1, mine 2, mine 3"], 1),  # another job's half was taken
        (["new 1", "mine 1"], 1),
        (["new 1", "other 1, mine 1, mine 2"], 3),  # the same again
    ],
)
def test_what_came_next_of_a_refused_batch(batches, of_them):
    def batch(told):
        pairs = [each.split() for each in told.split(", ")]
        return [{"data": {"submission_id": job, "seq": int(seq)}} for job, seq in pairs]

    assert came_next(batch("other 1, mine 1, mine 2"), map(batch, batches)) == of_them
