"""A real slurmdbd on a MariaDB of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import accounting, slurm
from lab.paths import LabPaths
from lab.process import recorded, sweep, wait_until
from lab.proctable import belonging

pytestmark = pytest.mark.skipif(
    not accounting.is_installed(), reason="installed only for BYOC_LAB_ACCOUNTING=slurmdbd"
)


def test_accounts_outlive_a_restart_and_nothing_is_left(
    paths: LabPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the controller has forgotten with its state, accounting knows."""
    monkeypatch.setenv("BYOC_LAB_ACCOUNTING", "slurmdbd")

    def client(conf: Path, *command: str) -> str:
        environment = {**os.environ, "SLURM_CONF": str(conf)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        ).stdout.strip()

    conf = slurm.start(paths).conf
    client(conf, "sbatch", "--wait", "--job-name=a", "--output=/dev/null", "--wrap=exit 3")
    ask = ("sacct", "-X", "--noheader", "--parsable2", "--name=a", "--format=State,ExitCode")
    wait_until(lambda: client(conf, *ask) == "FAILED|3:0", 30, "accounting to know")
    slurm.stop(paths)
    assert recorded(paths) == {}

    conf = slurm.start(paths).conf

    assert client(conf, *ask) == "FAILED|3:0"
    sweep(paths)
    assert belonging(paths) == {}
