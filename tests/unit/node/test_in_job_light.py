"""What an element of an array starts with: no more than it needs, and the same as the standard library has."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job import light, packed
from aiida_byoc.runtimes.in_job.array_task import directory_of
from tests.eventually import eventually
from tests.unit.node.inside import Job
from tests.unit.node.test_in_job import contained, needs_bubblewrap
from tests.unit.node.test_in_job_array import array, element, results

COSTLY = {
    *("collections", "contextlib", "ctypes", "enum", "functools", "json", "os", "re", "runpy"),
    *("shutil", "signal", "subprocess", "threading", "typing", "byoc_in_job.array_pool"),
}
LIBRARY: Any = os
PRIVATE = ("_ctypes", "_json", "_signal")
WITHOUT = f"import ctypes, json, signal, sys; sys.modules.update(dict.fromkeys({PRIVATE!r}));"
"""The library has what it stands on; nobody else gets it any more."""
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job", words=packed.START)


def one_task_each(job: Job, rootfs: Path, count: int, script: str = "true", **options: Any) -> None:
    array(
        job,
        script,
        [(str(n),) for n in range(count)],
        pack=1,
        elements=count,
        **{**contained(rootfs), **options},
    )


def fresh(name: str) -> ModuleType:
    """The module once more, as it is imported now."""
    spec = importlib.util.spec_from_file_location(name, light.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The module where CPython's own are missing."""
    with pytest.MonkeyPatch.context() as patch:
        import ctypes  # noqa: F401

        for name in PRIVATE:
            patch.setitem(sys.modules, name, None)
        module = fresh("plain")
        module.prctl()
    return module


@needs_bubblewrap
def test_an_element_of_one_task_imports_nothing_that_takes_its_time(job: Job, rootfs: Path) -> None:
    one_task_each(job, rootfs, 2)
    assert element(job, 0) == 0  # the first one makes what all have in common

    assert element(replace(job, words=("-X", "importtime", *packed.START)), 1) == 0

    imported = {line.rpartition("|")[2].strip() for line in job.said("stderr").splitlines()}
    assert {"_json", "resource"} <= imported
    assert imported & COSTLY == set()


@needs_bubblewrap
def test_an_element_is_the_same_without_the_private_modules(job: Job, rootfs: Path) -> None:
    one_task_each(job, rootfs, 2, 'printf "%s é" "$1" >&2; exit 3')
    plain = replace(job, words=(*packed.START[:-1], WITHOUT + packed.START[-1]))

    assert (element(job, 0), element(plain, 1)) == (1, 1)

    (one,), (other,) = results(job, 0).values(), results(job, 1).values()
    measured = ("started_at", "ended_at", "cpu_seconds", "peak_rss_mib")
    for each in (one, other):
        assert each.pop("cpu_seconds") > 0  # of an adopted process too
    told = {"number": 1, "id": "t1", "element": 1, "message": "1 é"}
    assert {**other, **dict.fromkeys(measured)} == {**one, **dict.fromkeys(measured), **told}
    assert other["message"] == "1 é"


def test_the_private_modules_are_used_where_they_are(plain: ModuleType) -> None:
    assert light.signal.__name__ == "_signal"
    assert light.dumps.__module__ == light.__name__
    assert light.prctl().__name__ == "<lambda>"
    assert plain.signal.__name__ == "signal"
    assert plain.dumps is json.dumps
    assert plain.prctl().__name__ == "prctl"


def test_what_is_written_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path, text = tmp_path / "record", "é" * 700_000
    light.write(str(path), text, durable=True)

    assert light.read(str(path)) == path.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["record"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        light.write(str(tmp_path / "taken"), "")
    with pytest.raises(FileNotFoundError):
        light.read(str(tmp_path / "missing"))


def test_a_private_module_that_is_another_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = ModuleType("_json")
    other.encode_basestring_ascii, other.make_scanner, other.make_encoder = str, id, id
    monkeypatch.setitem(sys.modules, "_json", other)

    module = fresh("other")

    assert (module.dumps, module.loads) == (json.dumps, json.loads)


@given(value=values)
def test_json_is_written_and_read_as_by_the_library(value: Any) -> None:
    text = light.dumps(value)

    assert text == json.dumps(value)
    assert light.loads(f" \n{text}\t") == json.loads(text) == value


@given(text=st.text() | st.text('[]{}":,0123456789.eE+-truefalsnINfity \n\\u'))
def test_what_is_not_json_is_refused_as_by_the_library(text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  (no other kind is promised)
            light.loads(text)
    else:
        assert repr(light.loads(text)) == repr(wanted)


def test_nothing_else_is_written() -> None:
    with pytest.raises(TypeError, match="object"):
        light.dumps({"a": object()})


@given(parts=st.lists(st.text("ab/."), min_size=1))
def test_paths_are_put_together_as_by_the_library(parts: list[str]) -> None:
    path = light._Os().path

    assert path.join(*parts) == LIBRARY.path.join(*parts)
    assert path.dirname(parts[0]) == LIBRARY.path.dirname(parts[0])
    assert path.realpath("a/..") == LIBRARY.path.realpath("a/..")


def test_the_system_is_asked_as_by_the_library(tmp_path: Path) -> None:
    system, path = light._Os(), light._Os().path
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")

    for name in ("", "file", "link", "none", "file/x", "\0"):
        place = LIBRARY.path.join(tmp_path, name)
        assert (path.exists(place), path.isdir(place)) == (
            LIBRARY.path.exists(place),
            LIBRARY.path.isdir(place),
        )
    assert system.environ == dict(os.environ)
    assert system.walk is os.walk
    names = ("curdir", "pardir", "pathsep", "defpath", "devnull")
    assert [getattr(system, name) for name in names] == [getattr(os, name) for name in names]


def test_directories_are_made_as_by_the_library(tmp_path: Path) -> None:
    system = light._Os()
    (tmp_path / "file").touch()

    system.makedirs(f"{tmp_path}/a/b/c")
    system.makedirs(f"{tmp_path}/a/b", exist_ok=True)

    assert (tmp_path / "a/b/c").is_dir()
    for name, exist_ok in (("a/b", False), ("file", True), ("file/x", True)):
        with pytest.raises(OSError, match=name) as ours:
            system.makedirs(f"{tmp_path}/{name}", exist_ok=exist_ok)
        with pytest.raises(OSError, match=name) as theirs:
            LIBRARY.makedirs(f"{tmp_path}/{name}", exist_ok=exist_ok)
        assert type(ours.value) is type(theirs.value)


@pytest.mark.parametrize("path", ["", ":", "/usr/bin:/bin", "/none:/bin", None])
@pytest.mark.parametrize("program", ["sh", "/bin/sh", "/bin", "here", "./here", "bin", "none"])
def test_programs_are_found_as_by_the_library(
    program: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").touch(0o700)
    monkeypatch.chdir(tmp_path)
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)

    assert light.which(program) == shutil.which(program)


def test_only_what_is_named_is_suppressed() -> None:
    with light.suppress(OSError, ValueError):
        raise FileNotFoundError
    with pytest.raises(KeyError), light.suppress(OSError):
        raise KeyError


@needs_bubblewrap
def test_a_task_that_takes_longer_than_a_second_is_reported(
    job: Job, rootfs: Path, tmp_path: Path
) -> None:
    """By what the element had no use for until then, and imports from wherever it is."""
    one_task_each(job, rootfs, 1, "until test -e go; do sleep 0.05; done", progress_seconds=1)
    process = job.go(SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="0")

    eventually(lambda: list(job.news.glob("b-1.progress-*")), "a report", seconds=20)
    (job.directory / directory_of(0) / "work" / "go").touch()

    assert process.wait(30) == 0


def test_an_element_reads_its_own_tasks_alone(job: Job) -> None:
    array(job, 'echo "$1"', [(str(n),) for n in range(3)], pack=1, elements=3)
    path = job.directory / in_job.ARRAY_TASKS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\0" * len(lines[0]) + lines[1] + b"\0" * len(lines[2]))

    assert element(job, 1) == 0

    assert [each["state"] for each in results(job, 1).values()] == ["succeeded"]
