"""A receipt is checked with the node's public key alone, and nothing that was changed passes."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.contracts.canonical import canonical_json
from aiida_byoc.contracts.enrolment import PublicKey
from aiida_byoc.contracts.receipt import Envelope, Statement
from aiida_byoc.contracts.receipt.__main__ import main
from aiida_byoc.contracts.receipt.verification import (
    ReceiptError,
    envelope_text,
    public_keys,
    signed,
    verified,
)
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import DOCUMENTS, ROOT, changed, golden

VECTOR = json.loads((Path(__file__).parent / "vectors" / "provenance-receipt.v1.json").read_text())
PUBLIC = PublicKey.model_validate(VECTOR["public_key"])
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SORTED = b"1\n2\n3\n"


def private_key() -> Ed25519PrivateKey:
    seed = base64.urlsafe_b64decode(VECTOR["private_key"]["d"] + "=")
    return Ed25519PrivateKey.from_private_bytes(seed)


def jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x}


def envelope(**changes: Any) -> Envelope:
    """The golden receipt, with whole members changed."""
    return validated(Envelope, {**golden("receipt-envelope"), **changes})


def repacked(path: str, value: Any) -> Envelope:
    """The golden receipt with another payload under the same signature."""
    payload = json.loads(base64.b64decode(golden("receipt-envelope")["payload"]))
    content = canonical_json(changed(payload, path, value))
    return envelope(payload=base64.b64encode(content).decode())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The golden receipt, the node's key and the job's outputs, as an outsider has them."""
    (tmp_path / "receipt.json").write_text(envelope_text(envelope()))
    (tmp_path / "node.jwk").write_text(json.dumps(VECTOR["public_key"]))
    (tmp_path / "outputs" / "results").mkdir(parents=True)
    (tmp_path / "outputs" / "results" / "sorted.txt").write_bytes(SORTED)
    return tmp_path


@pytest.fixture
def verify(place: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the program on the receipt; return its status and what it said."""

    def run(*options: str) -> tuple[int, str]:
        words = [word.format(place=place) for word in options]
        status = main(["verify", str(place / "receipt.json"), *words])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_the_golden_receipt_is_the_nodes_and_says_what_the_golden_statement_says():
    statement = verified(envelope(), [PUBLIC])

    assert statement.model_dump(mode="json", exclude_none=True) == golden(
        "receipt-statement.succeeded"
    )
    assert statement.payload() == base64.b64decode(golden("receipt-envelope")["payload"])


def test_the_same_statement_under_the_same_key_is_the_same_receipt():
    statement = validated(Statement, golden("receipt-statement.succeeded"))

    assert signed(statement, private_key()) == envelope()
    assert signed(statement, OTHER).payload == envelope().payload


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("predicate.job_id", "relax-0043"),
        ("predicate.tenant_id", "globex"),
        ("predicate.state", "failed"),
        ("predicate.image.digest", f"sha256:{'0' * 64}"),
        ("predicate.calculations.1.script", "0" * 64),
        ("predicate.calculations.1.scheduler.job_id", "1"),
        ("subject.0.digest.sha256", "0" * 64),
        ("predicate.unknown", "a member more"),
    ],
)
def test_a_changed_payload_does_not_pass(path, value):
    with pytest.raises(ReceiptError, match="it was changed after it was signed"):
        verified(repacked(path, value), [PUBLIC])


def test_a_signature_of_another_receipt_does_not_pass():
    other = validated(
        Statement,
        changed(golden("receipt-statement.succeeded"), "predicate.job_id", "relax-0043"),
    )
    theirs = [each.model_dump() for each in signed(other, private_key()).signatures]

    with pytest.raises(ReceiptError, match="does not bear the signature"):
        verified(envelope(signatures=theirs), [PUBLIC])


def test_a_stranger_who_calls_himself_the_node_does_not_pass():
    """The name of a key proves nothing."""
    forged = signed(validated(Statement, golden("receipt-statement.succeeded")), OTHER)
    named = [{**forged.signatures[0].model_dump(), "keyid": VECTOR["key_id"]}]

    with pytest.raises(ReceiptError, match="does not bear the signature"):
        verified(envelope(payload=forged.payload, signatures=named), [PUBLIC])


def test_a_node_that_changed_its_key_is_known_by_the_set_of_its_keys():
    """Receipts of both keys pass with both, and each with its own."""
    statement = validated(Statement, golden("receipt-statement.succeeded"))
    before, after = signed(statement, private_key()), signed(statement, OTHER)
    rotated = PublicKey.model_validate(jwk(OTHER))

    assert verified(before, [rotated, PUBLIC]) == verified(after, [rotated, PUBLIC])
    with pytest.raises(ReceiptError, match="a node that changed its key signs with the new one"):
        verified(after, [PUBLIC])


def test_a_key_may_be_given_with_members_that_say_nothing_about_it():
    """What a set says of a key, its name above all, is not believed; keys of another kind are left out."""
    said = {**VECTOR["public_key"], "kid": "another", "use": "sig", "alg": "EdDSA"}
    keys = {"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}, said]}

    assert [key.key_id for key in public_keys(json.dumps(keys).encode())] == [VECTOR["key_id"]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no", "is not a public key"),
        (b"[]", "is not a public key"),
        (b"{}", "holds no Ed25519 key"),
        (b'{"keys": []}', "holds no Ed25519 key"),
        (b'{"kty": "OKP", "crv": "Ed25519"}', "is not a public key"),
        (b'{"kty": "OKP", "crv": "Ed25519", "x": "short"}', "is not a public key"),
    ],
)
def test_what_is_no_key_is_said(content, sentence):
    with pytest.raises(ReceiptError, match=sentence):
        public_keys(content)


def test_signed_bytes_that_are_no_receipt_of_ours_are_not_taken_for_one():
    statement = validated(Statement, golden("receipt-statement.succeeded"))
    later = statement.model_copy(update={"predicate_type": "https://aiida-byoc.org/receipt/v9"})

    with pytest.raises(ReceiptError, match="no receipt of a version that is known here"):
        verified(signed(later, private_key()), [PUBLIC])


@pytest.mark.parametrize("name", ["failed", "cancelled"])
def test_a_job_without_a_file_is_its_own_subject(name):
    statement = validated(Statement, golden(f"receipt-statement.{name}"))

    assert statement.outputs == {}
    assert len(statement.subject) == 1


def test_the_program_says_what_is_known(verify):
    status, said = verify("--key", "{place}/node.jwk", "--outputs", "{place}/outputs")

    assert status == 0
    for words in (
        "The node cluster-1 signed this receipt",
        "acme/alloys/relax-0042",
        "attempt    2: Slurm job 4712 on c2",
        "The 1 outputs are in",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"1\n2\n4\n", "results/sorted.txt is another file"),
        (None, "results/sorted.txt is not there"),
    ],
)
def test_the_program_finds_an_output_that_is_not_the_jobs(content, sentence, place, verify):
    file = place / "outputs" / "results" / "sorted.txt"
    file.write_bytes(content) if content else file.unlink()

    status, said = verify("--key", "{place}/node.jwk", "--outputs", "{place}/outputs")

    assert (status, sentence in said) == (1, True), said


def test_the_program_refuses_another_jobs_receipt(verify):
    status, said = verify("--key", "{place}/node.jwk", "--job", "relax-0043")

    assert (status, "is the receipt of another job, relax-0042" in said) == (1, True)


@pytest.mark.parametrize(
    ("receipt", "sentence"),
    [
        (b"no", "is not JSON"),
        (b"{}", "is not a DSSE envelope"),
        (b'{"payload": 1, "payload": 2}', "appears twice"),
        (None, "cannot be read"),
    ],
)
def test_the_program_says_what_is_no_receipt(receipt, sentence, place, verify):
    file = place / "receipt.json"
    file.write_bytes(receipt) if receipt else file.unlink()

    status, said = verify("--key", "{place}/node.jwk")

    assert (status, sentence in said) == (1, True), said


def test_the_program_needs_nothing_but_the_contracts(place):
    """Where AiiDA, its databases and HTTP are not installed."""
    blocked = ("aiida", "plumpy", "psycopg", "sqlalchemy", "httpx", "click", "fastapi")
    run = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "runpy.run_module('aiida_byoc.contracts.receipt', run_name='__main__')\n"
    )
    words = ["verify", str(place / "receipt.json"), "--key", str(place / "node.jwk")]

    result = subprocess.run(
        [sys.executable, "-c", run, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert "signed this receipt" in result.stdout


def recipe(language: str) -> str:
    page = (DOCUMENTS / "provenance-receipt.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return str(found)


def try_recipe(language: str, place: Path) -> int:
    program = ["sh", "-e", "-c"] if language == "sh" else [sys.executable, "-c"]
    words = [] if language == "sh" else ["receipt.json", "node.jwk"]
    result = subprocess.run(
        [*program, recipe(language), *words],
        cwd=place,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return result.returncode


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_recipes_of_the_page_tell_a_true_receipt_from_a_changed_one(language, place):
    if language == "sh" and shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    assert try_recipe(language, place) == 0

    (place / "receipt.json").write_text(envelope_text(repacked("predicate.state", "failed")))

    assert try_recipe(language, place) == 1
