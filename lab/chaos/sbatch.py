#!/usr/bin/env python3
"""Stands before the real `sbatch`: does what it does, then lies about it, or kills who asked. Standard library only.

A file in `faults` beside this program's directory decides about one call, and is taken away by it:

    lose-*      execute, then report "Socket timed out": nobody knows whether there is a job
    refuse-*    the same words, nothing executed
    kill-*      execute, then SIGKILL the worker that asked, before it hears the job's number
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
BIN = Path(__file__).absolute().parent


def main() -> int:
    """Pass the call on, as the next fault says."""
    fault = _next_fault()
    if fault == "refuse":
        sys.stderr.write(TIMED_OUT)
        return 1
    rest = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != BIN]
    environment = {**os.environ, "PATH": os.pathsep.join(rest)}
    done = subprocess.run(
        ["sbatch", *sys.argv[1:]], env=environment, capture_output=True, text=True, check=False
    )
    if fault == "kill":
        os.kill(_worker(), signal.SIGKILL)
    if fault in {"lose", "kill"}:
        sys.stderr.write(TIMED_OUT)
        return 1
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _next_fault() -> str | None:
    for file in sorted((BIN.parent / "faults").glob("*-*")):
        with contextlib.suppress(FileNotFoundError):  # another call was faster
            file.unlink()
            return file.name.partition("-")[0]
    return None


def _worker() -> int:
    """The worker above this program: the first ancestor that is one of AiiDA's."""
    pid = os.getpid()
    while pid > 1:
        if b"\0daemon\0worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise LookupError("nobody above this sbatch is a worker")


if __name__ == "__main__":
    sys.exit(main())
