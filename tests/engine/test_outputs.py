"""Outputs and logs of a real container, from what it leaves to what AiiDA and the product are told."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.runtimes.in_job.streams import LAST_BYTES
from tests.engine.driving import Underway

HOSTILE = """
import os, socket
open("good", "w").write("x")
os.symlink("/etc/passwd", "link")
os.symlink("../byoc_record.json", "record")
os.symlink("..", "up")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
os.mkdir("directory")
for source in ("/etc/passwd", "/bin/sh", "../byoc_job.json"):
    try: os.link(source, "hard")
    except OSError as error: print(source, error.strerror)
for kind in (0o020666, 0o060666):
    try: os.mknod("device", kind, os.makedev(1, 5))
    except OSError as error: print("device", error.strerror)
os.chmod(".", 0)
"""
"""What a container may try with names that it promised."""

FORGING = """
import glob, json, os
record = json.dumps({"exit_code": 0, "outputs": [], "missing": []})
places = ["..", "/", "/work/..", *glob.glob("/proc/[0-9]*/cwd/.."), *glob.glob("/proc/[0-9]*/root")]
for place in places:
    try: open(place + "/byoc_record.json", "w").write(record)
    except OSError as error: print(place, error.strerror)
    else: print(place, "WRITTEN")
open("byoc_record.json", "w").write(record)
raise SystemExit(7)
"""


def test_what_patterns_mean_is_kept_and_what_is_large_stays(node: Any) -> None:
    """AiiDA has them all; the event tells the first 64, and counts the others."""
    script = "mkdir -p m/n; for n in $(seq 10 79); do echo $n > m/n/$n.json; done; head -c 5000 /dev/zero > large.bin"
    promised = [{"name": "large.bin"}, {"glob": "**/*.json"}, {"name": "plot", "required": False}]
    submission = node.accept(
        *("sh", "-c", script),
        workload={"outputs": promised},
        caps={"keep_in_place_above_bytes": 4999},
    )

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert last["state"] == "succeeded"
    told = last["result"]["outputs"]
    assert (len(told), last["result"]["outputs_omitted"]) == (64, 7)
    assert told[0] == {
        "name": "large.bin",
        "size": 5000,
        "sha256": hashlib.sha256(bytes(5000)).hexdigest(),
        "location": "remote",
    }
    assert told[1]["name"], told[1]["location"] == ("m/n/10.json", "repository")
    folder = chain.outputs.outputs.base.repository
    assert sorted(folder.list_object_names("m/n")) == [f"{n}.json" for n in range(10, 80)]
    assert folder.get_object_content("m/n/79.json") == "79\n"
    remote = Path(chain.outputs.remote_outputs.get_remote_path())
    assert (remote / "large.bin").read_bytes() == bytes(5000)
    assert len(chain.outputs.record["outputs"]) == 71


def test_i25_promises_kept_by_tricks_are_broken(node: Any) -> None:
    """Each is told with its reason; nothing else breaks, and nothing of the machine is taken."""
    names = ["link", "record", "up/secret", "fifo", "socket", "directory", "hard", "device", "good"]
    submission = node.accept(
        *("python3", "try.py"),
        workload={
            "inputs": [{"name": "try.py", "text": HOSTILE}],
            "outputs": [{"name": name} for name in names],
        },
    )

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], chain.exit_status) == ("failed", 303)
    assert last["error"]["code"] == "output_missing"
    assert [output["name"] for output in last["result"]["outputs"]] == ["good"]
    for name, reason in {
        "link": "is a symbolic link",
        "record": "is a symbolic link",
        "up/secret": "is not there",
        "fifo": "is a FIFO",
        "socket": "is a socket",
        "directory": "is a directory",
        "hard": "is not there",
        "device": "is not there",
    }.items():
        assert f"{name} ({reason})" in last["error"]["message"]


@pytest.mark.parametrize(
    ("caps", "code", "words"),
    [
        ({"max_output_bytes": 4}, "output_too_large", "b (has 5 bytes, 4 are allowed)"),
        ({"max_outputs": 1}, "too_many_outputs", "1 output files more"),
    ],
)
def test_outputs_beyond_the_owners_limits(
    node: Any, caps: dict[str, int], code: str, words: str
) -> None:
    """The others are kept."""
    submission = node.accept(
        *("sh", "-c", "printf 123 > a; printf 12345 > b"),
        workload={"outputs": [{"glob": "?"}]},
        caps=caps,
    )

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"], last["error"]["retryable"]) == (
        "failed",
        code,
        False,
    )
    assert words in last["error"]["message"]
    (attempt,) = chain.called
    assert attempt.outputs.outputs.base.repository.get_object_content("a") == "123"


def test_a_log_of_ten_gigabytes_and_a_binary_one(node: Any) -> None:
    """Neither fills a disk, nor stops the job, nor is decoded by anybody."""
    log = "dd if=/dev/zero bs=1M count=10240 2>/dev/null; echo the end"
    binary = "printf '\\377\\376\\000' >&2; head -c 70000 /dev/urandom >&2"
    submission = node.accept("sh", "-c", f"{log}; {binary}", caps={"max_log_bytes": 100_000})

    chain = node.run(submission)

    assert node.states(submission)[-1] == "succeeded"
    (attempt,) = chain.called
    with attempt.outputs.retrieved.base.repository.open("stdout", "rb") as file:
        out = file.read()
    with attempt.outputs.retrieved.base.repository.open("stderr", "rb") as file:
        err = file.read()
    assert len(out) < 100_000 + LAST_BYTES + 300
    assert out.endswith(b"\0the end\n")
    assert err.startswith(b"\xff\xfe\0")
    assert len(err) == 70003


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda record: os.truncate(record, 100), "record_invalid", "the whole is wrong"),
        (lambda record: os.truncate(record, 2**26), "record_invalid", "it has more than 32 MiB"),
        (lambda record: record.write_bytes(b"\xff\xfe"), "record_invalid", "the whole is wrong"),
        (lambda record: record.write_text("{}"), "record_invalid", "submission_id is wrong"),
    ],
    ids=["truncated", "huge", "not UTF-8", "forged"],
)
def test_i19_a_record_that_somebody_damaged_is_not_believed(
    node: Any, damage: Callable[[Path], object], code: str, words: str
) -> None:
    """Between the end of the job and the moment when it is fetched."""
    job = Underway(
        node, node.accept("sh", "-c", "sleep 1; echo x > o", workload={"outputs": [{"name": "o"}]})
    )
    job.end_unseen()
    damage(job.directory / "byoc_record.json")

    job.finish()

    assert (job.last["state"], job.last["error"]["code"]) == ("failed", code)
    assert words in job.last["error"]["message"]
    assert "result" not in job.last


def test_i19_a_container_cannot_forge_its_record(node: Any) -> None:
    """It cannot reach the place; what it writes where it can counts for nothing."""
    submission = node.accept(
        *("python3", "forge.py"),
        workload={
            "inputs": [{"name": "forge.py", "text": FORGING}],
            "outputs": [{"name": "byoc_record.json"}],
        },
    )

    chain = node.run(submission)

    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"], last["result"]["exit_code"]) == (
        "failed",
        "container_failed",
        7,
    )
    (attempt,) = chain.called
    assert "WRITTEN" not in attempt.outputs.retrieved.base.repository.get_object_content("stdout")
    assert attempt.outputs.record["exit_code"] == 7
    forged = attempt.outputs.outputs.base.repository.get_object_content("byoc_record.json")
    assert json.loads(forged)["exit_code"] == 0
