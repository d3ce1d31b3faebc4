"""The completion record is believed only if it is this job's, whole and true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, FolderData

from aiida_byoc.calculations.container import ContainerJob
from aiida_byoc.parsers.container import ContainerParser
from aiida_byoc.schedulers.options import job_directives

SPECIFICATION = {
    "submission_id": "7d0f1f0e-8d0f-4a53-9f5c-0b8f4e8f1c11",
    "attempt": 1,
    "image_digest": "sha256:" + "a" * 64,
}
CONTENT = b"42\n"
RECORD = {
    **SPECIFICATION,
    "scheduler_job_id": "17",
    "scheduler_job_name": "b-1",
    "container_started": True,
    "exit_code": 0,
    "message": None,
    "started_at": 1.0,
    "ended_at": 2.5,
    "outputs": [{"name": "a/b", "size": 3, "sha256": hashlib.sha256(CONTENT).hexdigest()}],
    "missing": [],
    "usage": {"cpu_seconds": 0.1, "peak_rss_mib": 3.0, "walltime_seconds": 1.5},
}

SLURMS = {"TIMEOUT": 120, "NODE_FAIL": 140, "PREEMPTED": 141, "CANCELLED": 142}
"""What Slurm does to a job, and the exit status that it is."""

Parse = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def parse(computer: Any, tmp_path: Path) -> Parse:
    """Parse what a job left; return the exit status and the outputs."""

    def run(
        record: bytes | None, *, content: bytes | None = CONTENT, slurm: str = ""
    ) -> tuple[int, dict[str, Any]]:
        node = CalcJobNode(computer=computer, process_type=ContainerJob.build_process_type())
        node.set_option("resources", {"num_machines": 1})
        node.set_option("custom_scheduler_commands", job_directives("b-1"))
        node.base.repository.put_object_from_bytes(
            json.dumps(SPECIFICATION).encode(), "byoc_job.json"
        )
        node.store()
        said = f"JobState={slurm} ExitCode=0:15" if slurm else ""
        node.set_detailed_job_info({"retval": 0, "stdout": said, "stderr": ""})
        retrieved = FolderData()
        if record is not None:
            retrieved.base.repository.put_object_from_bytes(record, "byoc_record.json")
        retrieved.base.links.add_incoming(node, LinkType.CREATE, "retrieved")
        retrieved.store()
        if content is not None:
            (tmp_path / "outputs/a").mkdir(parents=True)
            (tmp_path / "outputs/a/b").write_bytes(content)
        parser = ContainerParser(node)
        exit_code = parser.parse(retrieved_temporary_folder=str(tmp_path))
        return exit_code.status, parser.outputs

    return run


def status(name: str) -> int:
    """The exit status of that name."""
    return int(getattr(ContainerJob.exit_codes, name).status)


def record(**changes: Any) -> bytes:
    """A record, true but for the changes."""
    return json.dumps({**RECORD, **changes}).encode()


def test_a_true_record_gives_record_and_outputs(parse: Parse) -> None:
    """Both are nodes of the provenance graph."""
    exit_status, outputs = parse(record())

    assert exit_status == 0
    assert outputs["record"]["usage"]["cpu_seconds"] == 0.1
    assert outputs["outputs"].base.repository.get_object_content("a/b", mode="rb") == CONTENT


@pytest.mark.parametrize(
    ("progress", "kept"),
    [
        ({"step": 3, "reported_at": "2026-02-15T10:00:00.000Z"}, True),
        ({"step": -3, "reported_at": "2026-02-15T10:00:00.000Z"}, False),
        ("half way", False),
        (None, False),
    ],
)
def test_progress_is_kept_and_never_a_reason_to_fail(
    parse: Parse, progress: Any, kept: bool
) -> None:
    exit_status, outputs = parse(record(progress=progress, progress_skipped=2))

    assert exit_status == 0
    assert outputs["record"].get_dict().get("progress") == (progress if kept else None)
    assert outputs["record"]["progress_skipped"] == 2


def test_a_record_by_the_other_copy_of_the_attempt_is_true(parse: Parse) -> None:
    """`sbatch` failed in words and was repeated: whichever came first has run it."""
    assert parse(record(scheduler_job_id="16"))[0] == 0


def test_no_record_is_never_success(parse: Parse) -> None:
    """However quietly the job left the queue."""
    assert parse(None)[0] == status("ERROR_NO_COMPLETION_RECORD")


def test_slurm_explains_a_missing_record(parse: Parse) -> None:
    """Its verdict (here: out of memory) stands."""
    assert parse(None, slurm="OUT_OF_MEMORY")[0] == 110


@pytest.mark.parametrize("slurm", SLURMS)
@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (3, 400)])
def test_an_end_that_slurm_did_not_bring_about_is_the_programs(
    parse: Parse, slurm: str, exit_code: int, expected: int
) -> None:
    """What Slurm says of the job afterwards (walltime, node, preemption, cancel) does not undo it."""
    assert parse(record(exit_code=exit_code), slurm=slurm)[0] == expected


@pytest.mark.parametrize("slurm", SLURMS)
@pytest.mark.parametrize("exit_code", [0, 3, 143])
def test_an_end_that_slurm_asked_for_is_slurms(parse: Parse, slurm: str, exit_code: int) -> None:
    """However the program answered."""
    assert parse(record(exit_code=exit_code, stopped=True), slurm=slurm)[0] == SLURMS[slurm]


@pytest.mark.parametrize("exit_code", [0, 137])
def test_memory_that_ran_out_counts_whatever_the_program_noticed(
    parse: Parse, exit_code: int
) -> None:
    """The kernel kills one of its processes, and asks nobody to end."""
    assert parse(record(exit_code=exit_code), slurm="OUT_OF_MEMORY")[0] == 110


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        record(attempt=2),
        record(submission_id="00000000-0000-0000-0000-000000000000"),
        record(image_digest=1),
        record(scheduler_job_name="b-2"),
        record(scheduler_job_name=None),
        record(exit_code="0"),
        record(exit_code=256),
        record(outputs="none"),
        json.dumps({"exit_code": 0}).encode(),
        record()[:-20],
        record().replace(b'"b-1"', b'"\xff"'),
        record(reasons={"a": "\ud800"}),
        b'{"usage":' * 100_000,
        record(surplus=-1),
    ],
)
def test_a_record_that_is_not_this_jobs_is_refused(parse: Parse, forged: bytes) -> None:
    """Another job's, another attempt's, junk."""
    assert parse(forged)[0] == status("ERROR_COMPLETION_RECORD_INVALID")


def test_a_record_of_any_size_is_refused_before_it_is_read(parse: Parse) -> None:
    """A true one, but for the white space around it."""
    assert parse(record() + b" " * 2**25)[0] == status("ERROR_COMPLETION_RECORD_INVALID")


def test_what_the_record_does_not_tell_of_is_not_kept(parse: Parse, tmp_path: Path) -> None:
    """Whoever put it beside the outputs."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "other").write_text("x")

    _, outputs = parse(record())

    assert [str(path) for path, _, files in outputs["outputs"].base.repository.walk() if files] == [
        "a"
    ]


@pytest.mark.parametrize("name", ["../secret", "{}/secret", "a/../../secret"])
def test_a_record_that_names_another_place_gets_nothing(
    parse: Parse, tmp_path: Path, name: str
) -> None:
    """Also when it knows the file's hash."""
    (tmp_path / "secret").write_bytes(CONTENT)
    forged = record(outputs=[{**RECORD["outputs"][0], "name": name.format(tmp_path)}])  # type: ignore[index]

    exit_status, outputs = parse(forged)

    assert exit_status == status("ERROR_OUTPUT_ALTERED")
    assert "outputs" not in outputs


def test_a_link_in_place_of_an_output_is_refused(parse: Parse, tmp_path: Path) -> None:
    """Its content would have the right hash."""
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    (tmp_path / "real").write_bytes(CONTENT)
    (tmp_path / "outputs" / "a" / "b").symlink_to(tmp_path / "real")

    assert parse(record(), content=None)[0] == status("ERROR_OUTPUT_ALTERED")


def test_an_altered_output_is_refused(parse: Parse) -> None:
    """Its hash is not the record's: it is not kept."""
    exit_status, outputs = parse(record(), content=b"43\n")

    assert exit_status == status("ERROR_OUTPUT_ALTERED")
    assert "outputs" not in outputs


def test_a_lost_output_is_refused(parse: Parse) -> None:
    """The record has it, the retrieved files have not."""
    assert parse(record(), content=None)[0] == status("ERROR_OUTPUT_ALTERED")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"exit_code": 3}, "ERROR_COMMAND_FAILED"),
        ({"missing": ["c"]}, "ERROR_OUTPUT_FILEPATHS_MISSING"),
        ({"too_large": ["c"]}, "ERROR_OUTPUT_TOO_LARGE"),
        ({"surplus": 1}, "ERROR_TOO_MANY_OUTPUTS"),
        ({"changing": ["c"]}, "ERROR_OUTPUT_ALTERED"),
        ({"exit_code": 3, "missing": ["c"], "too_large": ["d"]}, "ERROR_COMMAND_FAILED"),
        (
            {"container_started": False, "exit_code": None, "message": "no such program"},
            "ERROR_CONTAINER_NOT_STARTED",
        ),
        ({"image_digest": "sha256:" + "b" * 64}, "ERROR_IMAGE_MISMATCH"),
        ({"image_digest": None}, "ERROR_IMAGE_NOT_THERE"),
    ],
)
def test_what_went_wrong_has_a_name(parse: Parse, changes: dict[str, Any], name: str) -> None:
    """Each kind of failure has its own exit code."""
    assert parse(record(**changes))[0] == status(name)
