#!/usr/bin/env python3
"""Run one container inside a Slurm job and leave a completion record. Standard library only, Python 3.6 or newer.

This file is copied into every job's directory and executed there, outside the container:

    byoc_job.json        what to run (read)
    byoc_fence/          made first; a second copy of the job finds it and leaves without a trace;
                         its file `owner` holds the Slurm id of the job that made it
    work/                the container's only window to the disk
    outputs/             declared outputs, moved here once verified: the container cannot reach them any more
    byoc_record.json     the completion record, written last, by atomic rename

Exit status: the container's, 125 when it did not start, 75 (EX_TEMPFAIL) when the fence was already taken.
"""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import time

SPECIFICATION = "byoc_job.json"
RECORD = "byoc_record.json"
FENCE = "byoc_fence"
OWNER = "owner"
WORK = "work"
OUTPUTS = "outputs"
STATUS_FD = "{status_fd}"
"""Stands in a command line for the descriptor on which the runtime reports what really ran."""
NOT_STARTED = 125
FENCED = 75


def main():
    with open(SPECIFICATION, encoding="utf-8") as file:
        specification = json.load(file)
    try:
        os.mkdir(FENCE)
    except FileExistsError:
        print("byoc: another copy of this job was here first; nothing was run", file=sys.stderr)
        return FENCED
    with open(os.path.join(FENCE, OWNER), "w", encoding="utf-8") as file:
        file.write(os.environ.get("SLURM_JOB_ID", "") + "\n")
    os.makedirs(WORK, exist_ok=True)
    adopt_orphans()
    started_at = time.time()
    code, message = run_container(specification)
    ended_at = time.time()
    outputs, missing = keep_outputs(specification["outputs"])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    write_record(
        {
            "submission_id": specification["submission_id"],
            "attempt": specification["attempt"],
            "image_digest": specification["image_digest"],
            "scheduler_job_id": os.environ.get("SLURM_JOB_ID"),
            "scheduler_job_name": os.environ.get("SLURM_JOB_NAME"),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "container_started": code is not None,
            "exit_code": code,
            "message": message,
            "started_at": started_at,
            "ended_at": ended_at,
            "outputs": outputs,
            "missing": missing,
            "usage": {
                "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
                "peak_rss_mib": round(used.ru_maxrss / 1024, 1),
                "walltime_seconds": round(ended_at - started_at, 3),
            },
        }
    )
    return NOT_STARTED if code is None else code


def run_container(specification):
    """Return (exit code of the program, None), or (None, why it did not start)."""
    reading, writing = os.pipe()
    runtime, *words = specification["command"]
    # Found on the machine's PATH: the environment given below is the container's.
    command = [shutil.which(runtime) or runtime, *words]
    tells = STATUS_FD in command
    if tells:  # the first is the runtime's; the program's own words are not touched
        command[command.index(STATUS_FD)] = str(writing)
    try:
        process = subprocess.Popen(
            command, env=specification["env"], stdin=subprocess.DEVNULL, pass_fds=[writing]
        )
    except OSError as error:
        return None, "the runtime {} cannot be started: {}".format(runtime, error.strerror)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as status:
        told = status.read()
    returned = process.wait()
    wait_for_orphans()
    if tells and exit_code_told(told) is None:
        if returned < 0:
            return 128 - returned, None
        return None, "the program was not started: " + last_words()
    return (128 - returned if returned < 0 else returned), None


def last_words():
    """What the runtime said: nothing else wrote to the job's stderr, since the program never ran."""
    try:
        with open("stderr", encoding="utf-8", errors="replace") as file:
            said = " ".join(file.read(4096).split())
    except OSError:
        said = ""
    return said[-300:].rstrip(".") or "the runtime did not say why"


def adopt_orphans():
    """Become the parent of what the runtime leaves behind (prctl(2), PR_SET_CHILD_SUBREAPER).

    bubblewrap does not wait for its container's first process: without this, its resource usage is lost, and it could
    still write while the outputs are measured.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def wait_for_orphans():
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def exit_code_told(text):
    """Find `exit-code` among the JSON objects that bubblewrap writes, one after the other."""
    decoder = json.JSONDecoder()
    position, found = 0, None
    decoded = text.decode("utf-8", "replace").strip()
    while position < len(decoded):
        try:
            value, position = decoder.raw_decode(decoded, position)
        except ValueError:
            break
        found = value.get("exit-code", found)
        while position < len(decoded) and decoded[position].isspace():
            position += 1
    return found


def keep_outputs(names):
    """Move each declared output out of the container's reach, then measure it; links and devices do not count."""
    kept, missing = [], []
    for name in names:
        source = os.path.join(WORK, name)
        inside = os.path.realpath(source) == os.path.join(os.path.realpath(WORK), name)
        try:
            regular = stat.S_ISREG(os.lstat(source).st_mode)
        except OSError:
            regular = False
        if not (inside and regular):
            missing.append(name)
            continue
        target = os.path.join(OUTPUTS, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.chmod(os.path.dirname(source), 0o700)  # a job may close its directories and files;
        os.rename(source, target)
        os.chmod(target, 0o600)  # they are ours, and to be read
        digest, size = hashlib.sha256(), 0
        with open(target, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
                size += len(block)
        kept.append({"name": name, "size": size, "sha256": digest.hexdigest()})
    return kept, missing


def write_record(record):
    """Write it so that it is either whole or absent, also after a power cut."""
    temporary = RECORD + ".tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, RECORD)


if __name__ == "__main__":
    sys.exit(main())
