"""The story of a job, from the fence to the record."""

import json
import os
import resource
import signal
import socket
import sys
import time

from . import FENCE, FENCED, NOT_STARTED, OWNER, SPECIFICATION, UNUSABLE, WORK
from .container import Container
from .ending import Ending
from .image import digest_of, objection
from .inputs import place_inputs
from .limits import no_core_dumps
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
    os.chmod(os.curdir, 0o700)  # what is in here is the tenant's, and what we write is believed
    os.makedirs(WORK, exist_ok=True)
    no_core_dumps()
    adopt_orphans()
    container = Container(specification)
    # Slurm says it before it kills: the container may end in order, and what it used outside of the job is removed.
    asked = []

    def stop(number, _):
        asked.append(number)
        container.signal(number)

    signal.signal(signal.SIGTERM, stop)
    image = digest_of(specification["rootfs"])
    wrong = objection(image, specification["image_digest"])
    started_at = time.time()
    unavailable = None if wrong else place_inputs(specification["inputs"])
    refused = wrong or unavailable
    code, message, usable = Ending(None, refused, True) if refused else container.run()
    stopped, ended_at = bool(asked), time.time()
    inputs = [each["name"] for each in specification["inputs"]]
    kept = keep_outputs(specification["outputs"], specification["caps"], inputs)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    write_record(
        {
            "submission_id": specification["submission_id"],
            "attempt": specification["attempt"],
            "image_digest": image,
            "scheduler_job_id": os.environ.get("SLURM_JOB_ID"),
            "scheduler_job_name": os.environ.get("SLURM_JOB_NAME"),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "container_started": code is not None,
            "runtime_usable": usable,
            "inputs_placed": unavailable is None,
            "exit_code": code,
            "stopped": stopped,
            "message": message,
            "started_at": started_at,
            "ended_at": ended_at,
            **kept,
            "usage": {
                "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
                "peak_rss_mib": round(used.ru_maxrss / 1024, 1),
                "walltime_seconds": round(ended_at - started_at, 3),
            },
        }
    )
    if code is None:
        return NOT_STARTED if usable else UNUSABLE
    return code


if __name__ == "__main__":
    sys.exit(main())
