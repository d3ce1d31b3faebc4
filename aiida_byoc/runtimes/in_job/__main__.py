"""The story of a job, from the fence to the record."""

import json
import os
import resource
import socket
import sys
import time

from . import FENCE, FENCED, NOT_STARTED, OWNER, SPECIFICATION, WORK
from .container import run_container
from .orphans import adopt_orphans
from .outputs import keep_outputs
from .record import write_record


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


if __name__ == "__main__":
    sys.exit(main())
