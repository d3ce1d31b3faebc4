"""Inputs that lie elsewhere: checked, mounted for reading alone, and never a way out of what the owner allows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.parsers.container import CompletionRecord
from aiida_byoc.runtimes import RUNTIMES, Container, in_job
from tests.unit.node.inside import Job

CONTENT = "1,2\n"
SHA256 = hashlib.sha256(CONTENT.encode()).hexdigest()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What the owner allows, links in it, and what lies beside it."""
    (tmp_path / "secret").write_text("the machine's own\n")
    place = tmp_path / "shared"
    (place / "set").mkdir(parents=True)
    (place / "set" / "a b.csv").write_text(CONTENT)
    (place / "near").symlink_to("set/a b.csv")
    (place / "far").symlink_to("../secret")
    (place / "up").symlink_to("..")
    (place / "dangling").symlink_to("nowhere")
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "fifo")
    (tmp_path / "alias").symlink_to("shared")
    return place


def wanted(shared: Path, where: str, **more: Any) -> dict[str, Any]:
    """An input of the shared place, at `d/in`."""
    source = f"{shared}/{where}" if where else str(shared)
    within = [str(shared)]
    return {"name": "d/in", "place": "inputs/000", "source": source, "within": within, **more}


def refusal(job: Job, *inputs: Mapping[str, Any]) -> str:
    """Why the job cannot have its inputs; its program is not started."""
    assert job.run("/bin/sh", "-c", "echo ran", inputs=inputs) == in_job.NOT_STARTED
    record = CompletionRecord.model_validate(job.record)
    assert (record.inputs_placed, record.container_started, record.runtime_usable) == (
        False,
        False,
        True,
    )
    assert job.said() == ""
    assert record.message is not None
    return record.message


@pytest.mark.parametrize("where", ["set/a b.csv", "near", "set", ""])
def test_what_is_below_the_shared_place_gets_a_place(job: Job, shared: Path, where: str) -> None:
    assert job.sh("true", inputs=[wanted(shared, where)]) == 0

    assert job.record["inputs_placed"] is True
    assert (job.directory / "inputs" / "000").resolve() == (shared / where).resolve()
    assert (job.directory / "work" / "d" / "in").is_dir() == (shared / where).is_dir()


def test_the_shared_place_may_itself_be_a_link(job: Job, shared: Path) -> None:
    alias = shared.with_name("alias")

    assert job.sh("true", inputs=[wanted(alias, "set/a b.csv")]) == 0


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("far", "leads out of"),
        ("up/secret", "leads out of"),
        ("up", "leads out of"),
        ("../secret", "leads out of"),
        ("nothing", "is not there"),
        ("dangling", "is not there"),
        ("loop", "is not there"),
        ("set/a b.csv/x", "is not there"),
        ("fifo", "is neither a file nor a directory"),
    ],
)
def test_i25_what_is_not_below_it_or_no_file_ends_the_job(
    job: Job, shared: Path, where: str, words: str
) -> None:
    said = refusal(job, wanted(shared, where))

    assert said.startswith("d/in ")
    assert words in said
    assert str(shared) not in said


def test_a_place_that_only_begins_alike_is_another(job: Job, shared: Path) -> None:
    (shared.parent / "shared-too").mkdir()
    (shared.parent / "shared-too" / "x").touch()

    assert "leads out of" in refusal(job, wanted(shared, "../shared-too/x"))


@pytest.mark.parametrize(
    ("where", "more", "words"),
    [
        ("set/a b.csv", {"sha256": "0" * 64}, "has another sha256"),
        ("set", {"sha256": SHA256}, "is a directory"),
        ("set", {"within": None}, "is a directory"),
        ("set/a b.csv", {"within": None, "size": 5}, "has another size"),
        ("set/a b.csv", {"within": []}, "leads out of"),
    ],
)
def test_a_file_is_the_promised_one(
    job: Job, shared: Path, where: str, more: dict[str, Any], words: str
) -> None:
    assert words in refusal(job, wanted(shared, where, **more))


def test_a_true_hash_is_true(job: Job, shared: Path) -> None:
    assert job.sh("true", inputs=[wanted(shared, "set/a b.csv", sha256=SHA256, size=4)]) == 0


@pytest.mark.parametrize("kind", ["link to a directory", "link", "file", "directory"])
def test_i25_no_place_is_made_through_what_an_earlier_attempt_left(
    job: Job, shared: Path, kind: str
) -> None:
    outside = shared.parent / "outside"
    outside.mkdir()
    work = job.directory / "work"
    work.mkdir()
    if kind == "link to a directory":
        (work / "d").symlink_to(outside)
    elif kind == "link":
        (work / "d").mkdir()
        (work / "d" / "in").symlink_to(outside / "x")
    elif kind == "file":
        (work / "d").touch()
    else:
        (work / "d" / "in").mkdir(parents=True)

    assert "a link or a file is in its way" in refusal(job, wanted(shared, "set/a b.csv"))
    assert list(outside.iterdir()) == []


def test_a_place_of_an_earlier_attempt_is_used_again(job: Job, shared: Path) -> None:
    (job.directory / "work" / "d").mkdir(parents=True)
    (job.directory / "work" / "d" / "in").touch()

    assert job.sh("true", inputs=[wanted(shared, "set/a b.csv")]) == 0


def test_an_input_is_no_output(job: Job, shared: Path) -> None:
    """Though a pattern means it."""
    job.sh("echo x > d/out", inputs=[wanted(shared, "near")], outputs=[{"glob": "d/*"}])

    assert [output["name"] for output in job.record["outputs"]] == ["d/out"]


@pytest.mark.parametrize("runtime", ["bubblewrap", "charliecloud", "podman"])
def test_a_container_reads_its_inputs_and_cannot_change_them(
    job: Job, shared: Path, rootfs: Path, runtime: str
) -> None:
    """A file that AiiDA has put there, a file and a directory of a shared place."""
    (job.directory / "inputs").mkdir()
    (job.directory / "inputs" / "002").write_text("put\n")
    inputs = [
        {**wanted(shared, "near"), "name": "a file.csv"},
        {**wanted(shared, "set"), "name": "d/set", "place": "inputs/001"},
        {"name": "d/put", "place": "inputs/002"},
    ]
    script = """
        cat 'a file.csv' 'd/set/a b.csv' d/put
        for f in 'a file.csv' 'd/set/a b.csv' d/put d/set/new; do (echo changed > "$f") || echo refused; done
        chmod 777 d/put 'a file.csv' || echo refused
        mkdir d/set/sub || echo refused
        echo out > d/out
    """
    container = Container(
        rootfs=str(rootfs),
        memory_mib=256,
        inputs=[(each["place"], each["name"]) for each in inputs],
    )

    status = job.start(
        ["sh", "-c", script],
        launch=RUNTIMES[runtime].launch(container),
        rootfs=rootfs,
        inputs=inputs,
        outputs=["d/out"],
        env={"PATH": "/bin"},
    ).wait(60)

    assert (status, job.record["message"]) == (0, None), job.said("stderr")
    assert job.said() == f"{CONTENT}{CONTENT}put\n" + "refused\n" * 6
    assert (shared / "set" / "a b.csv").read_text() == CONTENT
    assert (job.directory / "inputs" / "002").read_text() == "put\n"
    assert sorted(path.name for path in (shared / "set").iterdir()) == ["a b.csv"]
    assert [output["name"] for output in job.record["outputs"]] == ["d/out"]
