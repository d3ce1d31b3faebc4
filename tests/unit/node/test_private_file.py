"""Private files are whole and private, or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiida_byoc.agent.keys import made_key, private_key
from aiida_byoc.node import SettingsError
from aiida_byoc.private_file import NotPrivate, read_private, write_private


def test_whatever_the_umask_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "a" / "key"
    before = os.umask(0)
    try:
        write_private(path, b"1")
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_private(path) == b"1"


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """It is another file, so whoever reads the old one reads it to its end."""
    path = tmp_path / "key"
    write_private(path, b"old")
    path.chmod(0o644)
    with path.open("rb") as reader:
        write_private(path, b"newer")

        assert reader.read() == b"old"
    assert read_private(path) == b"newer"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()

    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "key", b"1")

    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private(path, b"1")
    path.chmod(mode)

    with pytest.raises(NotPrivate, match=f"mode 0{mode:o}.*chmod 600 {path}"):
        read_private(path)


def test_a_half_written_key_is_never_used(tmp_path: Path) -> None:
    """Not by us, who write it whole; and one that another program cut is refused, and kept."""
    path = tmp_path / "node.pem"
    key = made_key(path)
    content = path.read_bytes()
    assert made_key(path).private_bytes_raw() == key.private_bytes_raw()
    for length in (0, 1, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(SettingsError, match="is not a private key"):
            made_key(path)
        with pytest.raises(SettingsError, match="is not a private key"):
            private_key(path)
