"""A job's own places on a compute node: shared by its tasks there, gone with the last of them."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.runtimes.in_job import places
from aiida_byoc.runtimes.in_job.environment import environment
from aiida_byoc.runtimes.in_job.places import LOCK, OwnPlace, scratch_place

NAME = "byoc-cluster-17"


def own(asked: Mapping[str, Any] | None) -> OwnPlace:
    """The scratch space that was asked for."""
    return OwnPlace(scratch_place(asked), "scratch")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Scratch space for job 17, below the test's directory."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "cluster")
    return {"mib": 5, "place": str(tmp_path)}


def test_a_job_that_asked_for_none_gets_none(tmp_path: Path) -> None:
    none = own(None)

    none.make()
    none.remove()

    assert none.path == ""
    assert environment({"env": {"A": "1"}, "gpus": 0, "scratch": None}) == {"A": "1"}


def test_it_is_closed_to_others_and_empty_and_gone_afterwards(
    asked: dict[str, object], tmp_path: Path
) -> None:
    space = own(asked)

    space.make()

    assert space.path == str(tmp_path / NAME / "scratch")
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o700
    assert list(Path(space.path).iterdir()) == []
    (Path(space.path) / "d").mkdir()
    (Path(space.path) / "d" / "f").touch()
    (Path(space.path) / "d").chmod(0)
    space.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "place"), [({}, "/tmp"), ({"TMPDIR": "/a/b"}, "/a/b")], ids=["none", "TMPDIR"]
)
def test_where_nobody_says_it_is_where_temporary_files_are(
    asked: dict[str, object], monkeypatch: pytest.MonkeyPatch, variable: dict[str, str], place: str
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)

    assert own({**asked, "place": None}).path == f"{place}/{NAME}/scratch"


def test_a_requeued_job_finds_nothing_of_its_first_run(
    asked: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / NAME / "scratch").mkdir(parents=True)
    (tmp_path / NAME / "scratch" / "old").touch()
    space = own(asked)

    space.make()

    assert list(Path(space.path).iterdir()) == []


def test_tasks_share_it_and_the_last_removes_it(asked: dict[str, object], tmp_path: Path) -> None:
    """Here two in one process: a lock belongs to whoever opened it."""
    first, second = own(asked), own(asked)
    first.make()
    (Path(first.path) / "f").touch()

    second.make()
    first.remove()
    assert (Path(second.path) / "f").exists()
    second.remove()

    assert list(tmp_path.iterdir()) == []


def test_tasks_that_come_and_go_at_once_are_never_without_it(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an error, nor a directory that another one empties or removes meanwhile."""
    failures: list[str] = []

    def task(name: str) -> None:
        for _ in range(200):
            space = own(asked)
            try:
                space.make()
                mine = Path(space.path) / name
                mine.touch()
                if not mine.exists():
                    failures.append(f"{name}: gone")
                mine.unlink()
            except OSError as error:
                failures.append(f"{name}: {error!r}")
            space.remove()

    tasks = [threading.Thread(target=task, args=(str(number),)) for number in range(4)]
    for call in ("open", "mkdir", "stat", "unlink", "rmdir", "close"):
        monkeypatch.setattr(os, call, slowed(getattr(os, call), tasks))
    for each in tasks:
        each.start()
    for each in tasks:
        each.join(60)

    assert failures == []
    assert not [each for each in tasks if each.is_alive()]
    assert list(tmp_path.iterdir()) == []


def slowed(call: Callable[..., Any], threads: list[threading.Thread]) -> Callable[..., Any]:
    """The system call, before which one of the threads may let the others go first: nothing waits for that pause."""

    def wait_and_call(*words: Any, **named: Any) -> Any:
        if threading.current_thread() in threads and secrets.randbelow(10) < 3:
            time.sleep(secrets.randbelow(500) / 1e6)
        return call(*words, **named)

    return wait_and_call


def test_a_task_that_comes_when_the_last_has_just_gone_has_a_place_of_its_own(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the removal of the lock and that of its directory."""
    first, second = own(asked), own(asked)
    first.make()
    (Path(first.path) / "old").touch()
    remove = os.unlink

    def remove_and_come(path: str, **named: Any) -> None:
        remove(path, **named)
        if Path(path).name == LOCK and second._lock is None:
            second.make()
            (Path(second.path) / "new").touch()

    monkeypatch.setattr(os, "unlink", remove_and_come)
    first.remove()

    assert [each.name for each in Path(second.path).iterdir()] == ["new"]
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_who_holds_the_lock_of_a_place_that_is_gone_empties_no_other(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has opened the lock, and comes to lock it when the place has been removed and made anew."""
    before, late, now = own(asked), own(asked), own(asked)
    before.make()
    alone, calls = places._alone, []

    def later(lock: int) -> bool:
        calls.append(lock)
        if len(calls) == 1:
            before.remove()
            now.make()
            (Path(now.path) / "mine").touch()
        return alone(lock)

    monkeypatch.setattr(places, "_alone", later)
    late.make()

    assert [each.name for each in Path(late.path).iterdir()] == ["mine"]
    late.remove()
    assert (Path(now.path) / "mine").exists()
    now.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_killed_holds_nobody_up(asked: dict[str, object], tmp_path: Path) -> None:
    program = (
        f"from aiida_byoc.runtimes.in_job.places import OwnPlace; import os, signal;"
        f"OwnPlace({asked['place']!r}, 'scratch').make(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert (tmp_path / NAME).exists()
    space = own(asked)

    space.make()
    space.remove()

    assert list(tmp_path.iterdir()) == []


def test_a_link_that_somebody_put_there_is_not_followed(
    asked: dict[str, object], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / NAME).symlink_to(target)

    with pytest.raises(PermissionError, match="somebody else's"):
        own(asked).make()
    assert list(target.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes directories of others")
def test_a_directory_of_another_user_is_not_taken(asked: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    shutil.chown(tmp_path / NAME, "nobody")

    with pytest.raises(PermissionError, match="somebody else's"):
        own(asked).make()


def test_the_jobs_own_variables_win(
    asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the command's, and only for what the job asked for."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("SLURM_JOB_GPUS", "3")
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "BYOC_SCRATCH": "/elsewhere", "A": "1"}

    assert environment({"env": given, "gpus": 1, "scratch": asked}) == {
        "A": "1",
        "CUDA_VISIBLE_DEVICES": "1",
        "SLURM_JOB_GPUS": "3",
        "BYOC_SCRATCH": "/scratch",
        "BYOC_SCRATCH_MIB": "5",
    }
    assert environment({"env": given, "gpus": 0, "scratch": None}) == given
