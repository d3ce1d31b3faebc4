"""What `sinfo` prints becomes partitions; a controller that is slow, broken or hostile delays and breaks nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aiida_byoc.agent import inventory as module
from aiida_byoc.agent.inventory import Inventory, partitions_of
from tests.eventually import eventually

SHOWN = """\
batch|up|idle|3|0/96/0/96|gpu:a100:4(S:0-1)
batch|up|mixed|2|40/24/0/64|gpu:a100:2,gpu:v100:1
batch|up|down*|1|0/0/32/32|(null)
batch|up|idle*|1|0/0/32/32|(null)
batch|up|idle~|5|0/160/0/160|(null)
batch|up|mixed-|1|16/16/0/32|gpu:1
debug|inact|idle|1|0/32/0/32|craynetwork:4,gpu:2(IDX:0-1)
long|drain|allocated|1|32/0/0/32|mps:100
"""


def test_lines_become_partitions() -> None:
    batch, debug, long = partitions_of(SHOWN.splitlines())

    assert (batch.name, batch.up, batch.nodes, batch.nodes_free) == ("batch", True, 13, 8)
    assert (batch.cpus, batch.cpus_free) == (416, 296)
    assert batch.gpus == 3 * 4 + 2 * 3 + 1
    assert (debug.up, debug.gpus) == (False, 2)
    assert (long.up, long.nodes_free, long.gpus) == (False, 0, 0)


def test_what_is_not_understood_is_left_out() -> None:
    assert (
        partitions_of(["", "sinfo: error: what", "a|b", "a|up|idle|x|0/1/0/1|-", "\x00|||||"]) == []
    )


def test_one_call_asks_for_all_and_its_answer_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, monkeypatch, "echo 'batch|up|idle|3|0/96/0/96|(null)'")
    inventory = Inventory()

    assert inventory.partitions({"batch", "high"}) is None
    (found,) = eventually(lambda: inventory.partitions({"batch", "high"}), "the answer") or []
    for _ in range(5):
        inventory.partitions({"batch", "high"})

    assert (found.nodes, inventory.fails) == (3, False)
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "--partition=batch,high" in call or "--partition=high,batch" in call


def test_a_controller_that_hangs_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.3)
    inventory = Inventory(fresh_seconds=0)

    began = time.monotonic()
    for _ in range(10):
        assert inventory.partitions({"batch"}) is None
    assert time.monotonic() - began < 0.25

    assert eventually(lambda: inventory.fails, "the question to be given up")


@pytest.mark.parametrize("does", ["exit 1", "printf '\\377\\376|||\\n'; exit 3"])
def test_a_controller_that_fails_is_told_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    script(tmp_path, monkeypatch, does)
    inventory = Inventory(fresh_seconds=0)
    inventory.partitions({"batch"})
    assert eventually(lambda: inventory.fails, "the failure")

    script(tmp_path, monkeypatch, "echo 'batch|up|idle|3|0/96/0/96|(null)'")

    assert eventually(lambda: inventory.partitions({"batch"}), "the answer")
    assert not inventory.fails


def test_without_slurm_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    inventory = Inventory()

    assert inventory.partitions({"batch"}) is None
    assert eventually(lambda: inventory.fails, "the failure")


CONFIG = "echo 'Configuration data\nMaxArraySize            = 9\nMaxDBDMsgs = 20012'"


@pytest.mark.parametrize(
    ("said", "largest"),
    [(CONFIG, 9), ("echo MaxArraySize = many", None), ("exit 1", None), ("exec sleep 60", None)],
)
def test_slurm_says_how_large_an_array_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, largest: int | None
) -> None:
    """Where it does not, the rest is known all the same."""
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.3)
    script(tmp_path, monkeypatch, "echo 'batch|up|idle|3|0/96/0/96|(null)'")
    script(tmp_path, monkeypatch, said, program="scontrol")
    inventory = Inventory()
    assert inventory.largest_array is None

    assert eventually(lambda: inventory.partitions({"batch"}), "the answer")

    assert (inventory.largest_array, inventory.fails) == (largest, False)


def script(place: Path, monkeypatch: pytest.MonkeyPatch, does: str, program: str = "sinfo") -> None:
    """Let a program of Slurm's do that, and note how `sinfo` was called."""
    target, draft = place / program, place / "draft"
    calls = place / ("calls" if program == "sinfo" else "other calls")
    draft.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\n{does}\n')
    draft.chmod(0o755)
    draft.rename(target)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
