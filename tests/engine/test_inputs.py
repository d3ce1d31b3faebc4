"""Inputs of a real container: what it sees of earlier jobs and of shared places, and what becomes of it without."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.orm import FolderData, RemoteData

READ = ("sh", "-c", "cat in && cat in > out; echo y > in; rm -f in; touch in/x; true")
"""Read an input, and try to change it."""


def job_id(node: Any, submission: str) -> str:
    (row,) = node.connection.execute(
        "SELECT job_id FROM byoc.job WHERE submission_id = %s", (submission,)
    ).fetchone()
    return str(row)


def reading(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A workload whose one input is `in`."""
    return {"inputs": [{"name": "in", **source}], "outputs": [{"name": "out"}], **more}


def said(chain: Any, stream: str = "stdout") -> str:
    (attempt,) = chain.called
    return str(attempt.outputs.retrieved.base.repository.get_object_content(stream))


def state(node: Any, submission: str) -> str:
    return str(node.states(submission)[-1])


@pytest.mark.parametrize(
    ("threshold", "kind"), [(1000, FolderData), (0, RemoteData)], ids=["repository", "remote"]
)
def test_an_earlier_jobs_output_is_read_and_shown_in_provenance(
    node: Any, threshold: int, kind: type
) -> None:
    """Wherever it is kept; the later job cannot change it."""
    first = node.accept(
        *("sh", "-c", "mkdir d; echo made > d/x.dat; echo other > d/y.dat"),
        workload={"outputs": [{"glob": "d/*.dat"}]},
        caps={"keep_in_place_above_bytes": threshold},
    )
    earlier = node.run(first)
    source = {"job": {"job_id": job_id(node, first), "output": "d/x.dat"}}
    second = node.accept(*READ, workload=reading(source))

    chain = node.run(second)

    assert state(node, second) == "succeeded"
    assert said(chain) == "made\n"
    assert chain.outputs.outputs.base.repository.get_object_content("out") == "made\n"
    (attempt,) = chain.called
    (held,) = (
        link.node
        for link in attempt.base.links.get_incoming(link_type=LinkType.INPUT_CALC).all()
        if link.link_label == "given__input_000"
    )
    assert isinstance(held, kind)
    assert held.creator.caller.uuid == earlier.uuid
    assert held.uuid in {link.node.uuid for link in chain.base.links.get_incoming().all()}
    if kind is RemoteData:
        assert (Path(held.get_remote_path()) / "d" / "x.dat").read_text() == "made\n"


def test_a_job_waits_for_the_one_whose_output_it_reads(node: Any) -> None:
    """It is in the ledger, and nobody launches it before."""
    first = node.accept("sh", "-c", "echo made > x", workload={"outputs": [{"name": "x"}]})
    source = {"job": {"job_id": job_id(node, first), "output": "x"}}
    second = node.accept(*READ, workload=reading(source))

    chain = node.launch(first)
    for _ in range(3):
        node.launcher.step()
    assert node.states(second) == ["accepted"]
    node.runner.loop.run_until_complete(node.load(chain).step_until_terminated())

    assert said(node.run(second)) == "made\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo made > x; exit 3", "ended as failed"),
        ("mkdir d; echo made > d/other", "left no output"),
    ],
    ids=["failed", "without it"],
)
def test_a_job_fails_with_the_one_whose_output_it_reads(node: Any, script: str, words: str) -> None:
    """At once, and nothing is asked of Slurm."""
    promised = [{"glob": "[dx]*/**", "required": False}, {"glob": "x", "required": False}]
    first = node.accept("sh", "-c", script, workload={"outputs": promised})
    source = {"job": {"job_id": job_id(node, first), "output": "x"}}
    second = node.accept(*READ, workload=reading(source))
    node.run(first)

    node.launcher.step()

    last = node.events(second)[-1]
    assert (last["state"], last["error"]["code"]) == ("failed", "input_unavailable")
    assert words in last["error"]["message"]
    assert job_id(node, first) in last["error"]["message"]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared place with a data set, and something that lies outside of it."""
    (tmp_path / "secret").write_text("the machine's own\n")
    place = tmp_path / "shared"
    (place / "set" / "deep").mkdir(parents=True)
    (place / "set" / "deep" / "a.csv").write_text("1,2\n")
    (place / "set" / "out").symlink_to(tmp_path / "secret")
    (place / "latest").symlink_to("set")
    (place / "escape").symlink_to("..")
    return place


@pytest.mark.parametrize("where", ["set/deep/a.csv", "latest/deep/a.csv"])
def test_a_file_of_a_shared_place_is_read(node: Any, shared: Path, where: str) -> None:
    """Also through links that stay within; nobody can change it."""
    source = {
        "path": str(shared / where),
        "sha256": hashlib.sha256(b"1,2\n").hexdigest(),
    }
    submission = node.accept(*READ, workload=reading(source), caps={"paths": [str(shared)]})

    chain = node.run(submission)

    assert (state(node, submission), said(chain)) == ("succeeded", "1,2\n")
    assert "in" in said(chain, "stderr")
    assert (shared / "set" / "deep" / "a.csv").read_text() == "1,2\n"


def test_a_directory_of_a_shared_place_is_read(node: Any, shared: Path) -> None:
    """As it is: links in it lead to the container's own files, not to the machine's."""
    script = "cat in/deep/a.csv > out; cat in/out; echo y > in/new; ls -R in; true"
    submission = node.accept(
        *("sh", "-c", script),
        workload=reading({"path": str(shared / "set")}),
        caps={"paths": [str(shared)]},
    )

    chain = node.run(submission)

    assert state(node, submission) == "succeeded"
    assert "the machine's own" not in said(chain)
    assert chain.outputs.outputs.base.repository.get_object_content("out") == "1,2\n"
    assert not (shared / "set" / "new").exists()


@pytest.mark.parametrize(
    ("where", "sha256", "words"),
    [
        ("set/nothing", None, "in is not there"),
        ("set/out", None, "in leads out of the directories"),
        ("escape/secret", None, "in leads out of the directories"),
        ("set/deep/a.csv", "0" * 64, "in has another sha256"),
        ("set", "0" * 64, "in is a directory"),
    ],
)
def test_i25_an_input_that_cannot_be_had_ends_the_job(
    node: Any, shared: Path, where: str, sha256: str | None, words: str
) -> None:
    """Before its container starts, with a code of its own."""
    source = {"path": str(shared / where), **({"sha256": sha256} if sha256 else {})}
    submission = node.accept(*READ, workload=reading(source), caps={"paths": [str(shared)]})

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"]) == ("failed", "input_unavailable")
    assert words in last["error"]["message"]
    assert chain.exit_status == 330
    assert "result" not in last
