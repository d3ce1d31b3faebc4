"""Slurm's clients in a few lines of bash, first on the PATH, for answers that a real Slurm gives only in need."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from aiida_byoc.schedulers.slurm import ByocSlurmScheduler

__all__ = ["SCRIPT", "FakeSlurm"]

SCRIPT = "_aiidasubmit.sh"


@dataclass
class FakeSlurm:
    """A cluster whose programs answer what a test says; what they are asked is logged."""

    directory: Path

    def answer(self, program: str, script: str) -> None:
        """Let a program run `script`."""
        path = self.directory / "bin" / program
        path.parent.mkdir(exist_ok=True)
        # The log's name stands in it: of the environment little reaches a command of Slurm's.
        path.write_text(f'#!/bin/bash\nLOG={self.log}\necho "{program} $*" >> "$LOG"\n{script}\n')
        path.chmod(0o755)

    @property
    def log(self) -> Path:
        """A line for each question, and what a test's script adds."""
        return self.directory / "log"

    @property
    def asked(self) -> list[str]:
        """What was asked, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def programs(self) -> list[str]:
        """Which programs were asked, in order."""
        return [line.split()[0] for line in self.asked]

    def run(self, command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as AiiDA's transport does: by bash, in the job's directory."""
        path = f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env={"PATH": path, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def submit(self, name: str = SCRIPT, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the submit command."""
        # AiiDA hands the name over as the shell is to read it.
        return self.run(ByocSlurmScheduler()._get_submit_command(shlex.quote(name)), **env)
