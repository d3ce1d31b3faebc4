"""A policy.toml that cannot be used is told in one sentence, with the field at fault and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_byoc.commands.policy import Policy, PolicyError
from tests.builders import DIGEST, POLICY
from tests.unit.node.test_policy import OTHER, read

BROKEN = {
    "a type": ("cpu = 4", 'cpu = "4"', "ceilings.cpu"),
    "a fraction": ("cpu = 4", "cpu = 4.0", "ceilings.cpu"),
    "zero": ("cpu = 4", "cpu = 0", "ceilings.cpu"),
    "nothing": ("cpu = 4\n", "", "ceilings.cpu"),
    "an unknown field": ("cpu = 4", "cpu = 4\ncpus = 4", "ceilings.cpus"),
    "no tenant": ('["acme", "globex"]', "[]", "tenants"),
    "a runtime": ('"bubblewrap"', '"docker"', "runtime"),
    "shell in a partition": ('"batch"', '"batch; reboot"', "queues.main.partition"),
    "a line in an account": ('"chem-42"', '"chem\\n#SBATCH"', "queues.night.accounts.chemistry"),
    "a name": ("low =", '"low!" =', "queues.night.qos.low!"),
    "a digest": (DIGEST, "sha256:12", "images.localhost/byoc/demo.digests.0"),
    "a shrinking memory": ("[ceilings]", "[recovery]\nmemory_factor = 0.5\n[ceilings]", "recovery.memory_factor"),
    "no job at all": ("[ceilings]", "[limits]\nactive_jobs = 0\n[ceilings]", "limits.active_jobs"),
    "a size": ("digests = [", "max_mib = 0\ndigests = [", "images.localhost/byoc/demo.max_mib"),
    "an unapproved tag": (f'"1" = "{DIGEST}"', f'"1" = "{OTHER}"', "images.localhost/byoc/demo.tags"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field"), BROKEN.values(), ids=BROKEN.keys())
def test_a_mistake_is_told_in_one_sentence_with_its_field(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    assert old in POLICY

    with pytest.raises(PolicyError) as caught:
        read(tmp_path, POLICY.replace(old, new, 1))

    message = str(caught.value)
    assert f"policy.toml is wrong at {field}: " in message
    assert "\n" not in message


def test_an_unknown_runtime_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"'docker' is unknown; use one of bubblewrap"):
        read(tmp_path, POLICY.replace('"bubblewrap"', '"docker"'))


@pytest.mark.parametrize("content", [b"tenants = [", b"\xff\xfe"], ids=["syntax", "bytes"])
def test_what_is_not_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)

    with pytest.raises(PolicyError, match=r"policy\.toml is not TOML: "):
        Policy.load(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml cannot be read: No such file"):
        Policy.load(tmp_path / "none.toml")
