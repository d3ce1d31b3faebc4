"""Containers in Slurm batch jobs: the program of the job as `byoc.slurm` starts it, without AiiDA."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_byoc import runtimes
from aiida_byoc.runtimes import Container, in_job
from aiida_byoc.runtimes.images import ImageStore
from lab import image
from lab.paths import LabPaths
from lab.process import wait_until
from tests.engine.driving import run
from tests.unit.node.inside import Job

__all__ = ["MEMORY_MIB", "PYTHON", "RUNTIMES", "USERS", "Batch", "Site", "left_of", "sites"]

RUNTIMES = ("bubblewrap", "charliecloud", "podman")
"""Those that Debian has."""
USERS = ("me", "other") if os.geteuid() == 0 else ("me",)
PYTHON = "/usr/bin/python3"
MEMORY_MIB = 128
SCRIPT = f"#!/bin/bash\nexec {shlex.join([PYTHON, '-B', *in_job.START])}\n"


@dataclass(frozen=True)
class Site:
    """A user of the cluster, with a place for jobs and the image unpacked as theirs."""

    user: str
    place: Path
    rootfs: Path

    def submit(self, runtime: str, *argv: str, slurm: Sequence[str] = (), **options: Any) -> Batch:
        """Submit a job; `slurm` are options of sbatch, `files` scripts in its `/work`.

        `rootfs` is where the runtime looks for the image, if it is to find none.
        """
        directory = Path(tempfile.mkdtemp(dir=self.place))
        account = pwd.getpwnam(self.user)
        granted = {
            name: options.pop(name) for name in ("network", "gpus", "scratch") if name in options
        }
        rootfs = options.pop("rootfs", self.rootfs)
        (directory / "work").mkdir()
        for name, text in options.pop("files", {}).items():
            (directory / "work" / name).write_text(text)
            (directory / "work" / name).chmod(0o755)
        granted["inputs"] = [(each["place"], each["name"]) for each in options.get("inputs", ())]
        launch = runtimes.RUNTIMES[runtime].launch(
            Container(rootfs=str(rootfs), memory_mib=MEMORY_MIB, **granted)
        )
        options.setdefault("env", {"PATH": "/usr/bin", "HOME": "/work"})
        job = Job(directory)
        job.prepare(argv, launch=launch, rootfs=self.rootfs, **options)
        for name in ("stdout", "stderr"):
            (directory / name).touch()
        (directory / "script").write_text(SCRIPT)
        _give(directory, account)
        as_user = (
            [f"--uid={account.pw_uid}", f"--gid={account.pw_gid}"] if os.geteuid() == 0 else []
        )
        said = run(
            *(
                "sbatch",
                "--parsable",
                "--no-requeue",
                "--export=PATH",
                f"--mem={MEMORY_MIB + runtimes.OVERHEAD_MIB.get(runtime, 0)}",
            ),
            *("--time=5", f"--chdir={directory}", "--output=stdout", "--error=stderr"),
            *as_user,
            *slurm,
            str(directory / "script"),
        )
        return Batch(job=job, slurm_job=said.strip(), uid=account.pw_uid)


@dataclass(frozen=True)
class Batch:
    """A submitted job."""

    job: Job
    slurm_job: str
    uid: int

    @property
    def facts(self) -> dict[str, str]:
        """What Slurm's controller says of it."""
        shown = run("scontrol", "--oneliner", "show", "job", self.slurm_job)
        return dict(re.findall(r"(\w+)=(\S+)", shown))

    def until(self, *states: str, seconds: float = 60) -> dict[str, str]:
        """Wait until Slurm says one of the states, and is done with the node; return its facts."""

        def seen() -> dict[str, str] | None:
            facts = self.facts
            return facts if facts["JobState"] in states else None

        logs = [self.job.directory / name for name in ("stdout", "stderr")]
        return wait_until(seen, seconds, f"{self.slurm_job} to be {'/'.join(states)}", logs=logs)

    def ended(self, seconds: float = 60) -> dict[str, str]:
        """Wait for its end."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")
        return self.until(*ends, seconds=seconds)

    def until_said(self, words: str, seconds: float = 60) -> None:
        """Wait until its stdout holds the words."""
        logs = [self.job.directory / name for name in ("stdout", "stderr")]
        wait_until(lambda: words in self.job.said(), seconds, f"it to say {words!r}", logs=logs)

    def scancel(self, *options: str) -> None:
        """Cancel it, or with options only signal it."""
        run("scancel", *options, self.slurm_job)

    @property
    def report(self) -> Any:
        """The JSON that it wrote to its stdout."""
        return json.loads(self.job.said())


def left_of(batch: Batch, cluster: str, *words: str) -> list[str]:
    """What is left of a job on this machine: processes that have its name or these words, directories, cgroups."""
    name = f"{cluster}-{batch.slurm_job}"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(re.search(rf"{re.escape(word)}(?!\d)", line) for word in (name, *words)):
            found.append(line)
    places = [Path("/var/tmp"), Path("/tmp"), *Path("/sys/fs/cgroup").glob("*/")]
    return found + [
        str(place / f"byoc-{name}") for place in places if (place / f"byoc-{name}").exists()
    ]


def sites(paths: LabPaths, built: image.Image) -> dict[str, Site]:
    """The users whose jobs this cluster runs: whoever tests, and where that is root, an ordinary one too."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    found = {me: _site(me, paths.directory("jobs"), built)}
    if paths.service_user is not None:
        place = paths.service_directory("jobs-of-others")
        found[paths.service_user] = _site(paths.service_user, place, built)
    return found


def _site(user: str, place: Path, built: image.Image) -> Site:
    store = ImageStore(place / "store")
    store.add(built.layout_dir, built.digest)
    rootfs = store.rootfs(built.digest)
    _give(place, pwd.getpwnam(user))
    return Site(user=user, place=place, rootfs=rootfs)


def _give(place: Path, account: pwd.struct_passwd) -> None:
    if os.geteuid() == account.pw_uid:
        return
    subprocess.run(["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", str(place)], check=True)
