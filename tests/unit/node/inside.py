"""Run the program of `runtimes/in_job` as a Slurm job would."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_byoc.commands.data import Caps
from aiida_byoc.runtimes import Launch, in_job

__all__ = ["EMPTY", "SLURM", "Job"]

EMPTY = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
"""The digest of an image of these tests that has no manifest of its own."""

SLURM = {
    "SLURM_CLUSTER_NAME": f"unit{os.getpid()}",
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "b-1",
    "SLURM_JOB_NODELIST": "c1",
    "SLURMD_NODENAME": "c1",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
}
PATIENCE = 60


@dataclass
class Job:
    """A job's directory, and the program in it.

    Attributes:
        words: what Python is told, to start it.
    """

    directory: Path
    python: str = sys.executable
    words: Sequence[str] = in_job.START
    as_user: Sequence[str] = ()

    def _put(self, name: str, content: str) -> None:
        """Write it at once: a copy of the job may be reading it."""
        draft = self.directory.parent / f"{Path(name).name}.new"
        draft.write_text(content)
        draft.replace(self.directory / name)

    def prepare(
        self,
        argv: Sequence[str],
        *,
        launch: Launch | None = None,
        rootfs: Path | None = None,
        image_digest: str | None = None,
        processes: int = 4096,
        inputs: Sequence[Mapping[str, Any]] = (),
        outputs: Sequence[str | Mapping[str, Any]] = (),
        env: Mapping[str, str] | None = None,
        progress_seconds: float = 10,
        earlier: Sequence[Path] = (),
        signal: str | None = None,
        job: Mapping[str, Any] | None = None,
        **caps: int,
    ) -> None:
        """Put the specification and the program there.

        Without `launch` there is no container, without `rootfs` nothing in it; by default the image is the right one.
        `job` is what the shape of a job adds.
        """
        if rootfs is None:
            rootfs = self.directory.parent / "empty" / "rootfs"
            rootfs.mkdir(parents=True, exist_ok=True)
        manifest = rootfs.with_name("manifest")
        if not manifest.exists():
            manifest.write_text("{}")
        here = hashlib.sha256(manifest.read_bytes()).hexdigest()
        specification = {
            "submission_id": "11111111-1111-4111-8111-111111111111",
            "attempt": 2,
            "image_digest": image_digest or f"sha256:{here}",
            "runtime": (launch or Launch(programs=[], command=[])).to_json(),
            "rootfs": str(rootfs),
            "processes": processes,
            "argv": list(argv),
            "inputs": [dict(each) for each in inputs],
            "env": dict(env or {"PATH": os.defpath}),
            "outputs": [
                {"required": True, **({"name": each} if isinstance(each, str) else each)}
                for each in outputs
            ],
            "caps": Caps(**caps).model_dump(),
            "job_name": SLURM["SLURM_JOB_NAME"],
            "news": str(self.news),
            "progress_seconds": progress_seconds,
            "earlier": [str(each) for each in earlier],
            **({"signal": signal} if signal else {}),
            **(job or {}),
        }
        self._put(in_job.SPECIFICATION, json.dumps(specification))
        (self.directory / in_job.PROGRAM).mkdir(exist_ok=True)
        for module in Path(in_job.__file__).parent.glob("*.py"):
            self._put(f"{in_job.PROGRAM}/{module.name}", module.read_text())

    def start(
        self, argv: Sequence[str], *, before: Callable[[], object] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start the program, with its output in two files; `before` is called last."""
        self.prepare(argv, **options)
        if before is not None:
            before()
        return self.go()

    def go(self, **env: str) -> subprocess.Popen[bytes]:
        """Start the program that was prepared, with what Slurm adds to its environment."""
        with ExitStack() as stack:
            # Something to read, which the program must not get.
            words = stack.enter_context((self.directory / in_job.SPECIFICATION).open("rb"))
            out, err = (
                stack.enter_context((self.directory / name).open("ab"))
                for name in ("stdout", "stderr")
            )
            return subprocess.Popen(
                [*self.as_user, self.python, "-B", *self.words],
                cwd=self.directory,
                env={**os.environ, **SLURM, **env},
                stdin=words,
                stdout=out,
                stderr=err,
            )

    def run(self, *argv: str, **options: Any) -> int:
        """Run to the end; return the exit status."""
        return self.start(argv, **options).wait(PATIENCE)

    def sh(self, script: str, **options: Any) -> int:
        """Run a script by the simplest of all runtimes, in the container's directory."""
        return self.run("/bin/sh", "-c", f"cd {in_job.WORK} && {{ {script}\n}}", **options)

    @property
    def news(self) -> Path:
        """What the node lists; outside of the job's own directory."""
        return self.directory.with_name(f"{self.directory.name}.news")

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.directory / in_job.RECORD).read_text())

    def said(self, stream: str = "stdout") -> str:
        return (self.directory / stream).read_text()

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if not path.is_dir() and path.parent.name != in_job.PROGRAM
        }
