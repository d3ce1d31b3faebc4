"""The node's settings survive being written and read; a mistake is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.node import NodeSettings, SettingsError


def settings(tmp_path: Path, **changes: Any) -> NodeSettings:
    return NodeSettings.model_validate(
        {
            "node_id": "n1",
            "adapter_url": "https://adapter.example/base",
            "key_file": tmp_path / "node.pem",
            "policy_file": tmp_path / "policy.toml",
            "image_store": tmp_path / "images",
            "code": "byoc@slurm",
            **changes,
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"audience": "other", "poll_seconds": 1, "heartbeat_seconds": 0.25},
        {"registry_auth_file": Path("/etc/byoc/auth.json")},
        {"code": 'a "quoted" \\ name', "key_file": Path("/a b/ümlaut 'x'/k.pem")},
    ],
    ids=["defaults", "all", "credentials", "hard to write"],
)
def test_what_is_written_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = NodeSettings.path(tmp_path / "config", "main")
    written = settings(tmp_path, **changes)

    written.save(path)

    assert path.name == "main.toml"
    assert NodeSettings.load(path) == written


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('node_id = "n1"', 'node_id = "n 1"', "node_id"),
        ('"https://adapter.example/base"', '"nowhere"', "adapter_url"),
        ("poll_seconds = 25", "poll_seconds = 31", "poll_seconds"),
        ("poll_seconds = 25", "pol_seconds = 25", "pol_seconds"),
        ('code = "byoc@slurm"\n', "", "code"),
    ],
)
def test_a_mistake_names_its_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    path = tmp_path / "n.toml"
    settings(tmp_path).save(path)
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))

    with pytest.raises(SettingsError, match=rf"n\.toml is wrong at {field}: "):
        NodeSettings.load(path)


def test_a_missing_file_names_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"does not exist; run `verdi data byoc init`"):
        NodeSettings.load(tmp_path / "n.toml")


def test_what_is_not_toml_is_told(tmp_path: Path) -> None:
    path = tmp_path / "n.toml"
    path.write_text("node_id = ")

    with pytest.raises(SettingsError, match=r"n\.toml cannot be read: "):
        NodeSettings.load(path)
