"""The receipt of a real job holds against AiiDA's nodes, Slurm's word and the files themselves; so does its crate."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida.orm import load_node
from click.testing import CliRunner, Result

from aiida_byoc.agent.keys import made_key
from aiida_byoc.cli import byoc
from aiida_byoc.cli.common import settings_path
from aiida_byoc.contracts.receipt.verification import read_envelope
from tests.crates import broken, entities
from tests.engine.driving import run as command
from tests.engine.driving import squeue

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def job(node: Any) -> dict[str, Any]:
    """The last event of a job that read a text and left a file."""
    submission = node.accept(
        *("sh", "-c", "mkdir deep; sort in/numbers > deep/sorted; echo done"),
        workload={
            "inputs": [{"name": "in/numbers", "text": "3\n1\n2\n"}],
            "outputs": [{"name": "deep/sorted"}],
        },
    )
    node.run(submission)
    last: dict[str, Any] = node.events(submission)[-1]
    assert last["state"] == "succeeded"
    return last


@pytest.fixture(scope="module")
def run(
    node: Any, profile: Any, job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """`verdi data byoc jobs …` on a node that has a key."""
    key_file = tmp_path_factory.mktemp("key") / "node.pem"
    made_key(key_file)
    path = settings_path(profile.name)
    node.settings.model_copy(update={"key_file": key_file}).save(path)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(byoc, list(words), catch_exceptions=False)

    yield invoke
    path.unlink()


@pytest.fixture
def kept(run: Run, job: dict[str, Any], tmp_path: Path) -> Path:
    """A directory with the receipt, the node's public key and the output."""
    output = load_node(job["execution_id"]).outputs.outputs
    (tmp_path / "outputs" / "deep").mkdir(parents=True)
    content = output.base.repository.get_object_content("deep/sorted", mode="rb")
    (tmp_path / "outputs" / "deep" / "sorted").write_bytes(content)
    written = run(
        *("jobs", "receipt", job["job_id"], "--tenant", "acme"),
        *("--output", str(tmp_path / "receipt.json")),
    )
    assert written.exit_code == 0, written.output
    (tmp_path / "node.jwk").write_text(run("node", "show", "--public-key").output)
    return tmp_path


def cluster_name() -> str:
    """What Slurm calls itself."""
    (name,) = re.findall(
        r"^ClusterName\s*=\s*(\S+)", command("scontrol", "show", "config"), re.MULTILINE
    )
    return str(name)


def test_the_receipt_is_what_aiida_and_slurm_hold(kept: Path, job: dict[str, Any]) -> None:
    claim = read_envelope((kept / "receipt.json").read_bytes()).claim()
    assert claim is not None
    chain = load_node(job["execution_id"])
    (attempt,) = chain.called
    script = attempt.base.repository.get_object_content("_aiidasubmit.sh", mode="rb")

    run = claim.predicate
    (calculation,) = run.calculations

    assert (run.execution_id, calculation.uuid) == (chain.uuid, attempt.uuid)
    assert (run.submission_id, run.fingerprint != "") == (job["submission_id"], True)
    assert calculation.script == hashlib.sha256(script).hexdigest()
    assert calculation.stdout == hashlib.sha256(b"done\n").hexdigest()
    assert calculation.image_digest == job["image"]["digest"]
    assert run.versions["aiida-core"]
    assert claim.outputs == {"deep/sorted": hashlib.sha256(b"1\n2\n3\n").hexdigest()}
    assert [each.sha256 for each in run.inputs] == [hashlib.sha256(b"3\n1\n2\n").hexdigest()]
    slurm = calculation.scheduler
    assert slurm is not None
    assert (slurm.job_id, slurm.name) == (job["scheduler"]["job_id"], job["scheduler"]["name"])
    assert (slurm.state, slurm.exit_code, slurm.said_by) == ("COMPLETED", 0, "scontrol")
    assert slurm.node_list == squeue("--states=all", "--format=%N", f"--name={slurm.name}")
    assert slurm.cluster == cluster_name()
    assert calculation.usage is not None
    assert calculation.node_seconds is not None


def test_who_has_the_key_verifies_it_and_finds_another_output(run: Run, kept: Path) -> None:
    words = [
        *("jobs", "verify-receipt", str(kept / "receipt.json")),
        *("--outputs", str(kept / "outputs")),
    ]
    key = ["--key", str(kept / "node.jwk")]
    keys = kept / "keys.json"
    keys.write_text(json.dumps({"keys": [json.loads((kept / "node.jwk").read_text())]}))

    right, by_set = run(*words, *key), run(*words, "--keys", str(keys))
    (kept / "outputs" / "deep" / "sorted").write_text("1\n2\n")
    changed = run(*words, *key)

    assert (right.exit_code, by_set.exit_code) == (0, 0), right.output
    assert "signed this receipt" in right.output
    assert (changed.exit_code, "deep/sorted is another file" in changed.output) == (1, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give either --key or --keys"),
        (["--keys", "http://product.example/jwks.json"], "is no https URL"),
        (["--keys", "https://127.0.0.1:1/jwks.json"], "cannot be fetched"),
        (["--keys", "nowhere.json"], "cannot be read"),
    ],
)
def test_keys_that_cannot_be_had_are_one_sentence(
    words: list[str], sentence: str, run: Run, kept: Path
) -> None:
    result = run("jobs", "verify-receipt", str(kept / "receipt.json"), *words)

    assert result.exit_code != 0
    assert sentence in result.output


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_the_crate_holds_the_job(
    name: str, run: Run, kept: Path, job: dict[str, Any], tmp_path: Path
) -> None:
    """Receipt, command, script, streams, inputs and outputs, described by the rules of its profile."""
    target = tmp_path / name

    result = run("jobs", "export-crate", job["job_id"], str(target), "--tenant", "acme")
    again = run("jobs", "export-crate", job["job_id"], str(target), "--tenant", "acme")

    assert result.exit_code == 0, result.output
    assert (again.exit_code, "is there already" in again.output) == (1, True)
    crate = target
    if target.suffix:
        crate = tmp_path / "unpacked"
        zipfile.ZipFile(target).extractall(crate)
    assert list(broken(crate)) == []
    assert (crate / "receipt.json").read_bytes() == (kept / "receipt.json").read_bytes()
    assert (crate / "outputs" / "deep" / "sorted").read_text() == "1\n2\n3\n"
    assert (crate / "inputs" / "in" / "numbers").read_text() == "3\n1\n2\n"
    assert (crate / "attempts" / "1" / "stdout").read_text() == "done\n"
    assert json.loads((crate / "command.json").read_text())["job_id"] == job["job_id"]
    assert entities(crate)["#attempt-1"]["actionStatus"].endswith("CompletedActionStatus")


def test_a_node_without_a_key_says_so(
    run: Run, node: Any, profile: Any, job: dict[str, Any]
) -> None:
    path = settings_path(profile.name)
    before = path.read_bytes()
    node.settings.save(path)
    try:
        result = run("jobs", "receipt", job["job_id"], "--tenant", "acme")
    finally:
        path.write_bytes(before)

    assert (result.exit_code, "the node's key" in result.output) == (1, True), result.output


def test_what_has_no_receipt_says_so(run: Run, node: Any) -> None:
    submission = node.accept("true")
    job_id = node.events(submission)[-1]["job_id"]

    waiting = run("jobs", "receipt", job_id, "--tenant", "acme")
    foreign = run("jobs", "receipt", job_id, "--tenant", "globex")

    assert (waiting.exit_code, "The job is accepted" in waiting.output) == (1, True)
    assert (foreign.exit_code, "Check the node and job names" in foreign.output) == (1, True)
