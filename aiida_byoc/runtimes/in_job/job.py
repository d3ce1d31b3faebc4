"""The story of a job with one container, or the containers of a parallel one: from the fence to the record."""

import os
import signal
import sys
import time

from . import BEGUN, FENCE, FENCED, NOT_STARTED, OWNER, RECORD, UNUSABLE, WORK
from .carry import carry_over
from .container import Container
from .image import digest_of, objection
from .inputs import place_inputs
from .limits import no_core_dumps
from .news import News
from .outputs import keep_outputs
from .progress import Follower
from .record import write_record
from .spawn import adopt_orphans, note_none_left


def run_job(specification):
    """Run it; return the exit status of the Slurm job."""
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
    news = News(specification["news"], specification["job_name"])
    news.say("started")
    progress = Follower(news, specification["progress_seconds"])
    progress.start()
    adopted = adopt_orphans()
    heard = []
    running = []  # type: list[Container]

    def pass_on(number, _):
        heard.append(number)
        for container in running:
            container.signal(number)
        if number == signal.SIGTERM:
            news.say("stopping")

    # Slurm says it before it kills: the container may end in order, and what it used outside of the job is removed.
    signal.signal(signal.SIGTERM, pass_on)
    if "signal" in specification:
        signal.signal(getattr(signal, "SIG" + specification["signal"]), pass_on)
    image = digest_of(specification["rootfs"])
    end, carried, started_at, unavailable = run(specification, image, running, heard)
    code, message, usable = end
    signals, ended_at = [signal.Signals(each).name[len("SIG") :] for each in heard], time.time()
    progress.finish()
    inputs = [each["name"] for each in specification["inputs"]]
    kept = keep_outputs(specification["outputs"], specification["caps"], inputs)
    cpu_seconds, peak_rss_mib = running[0].used() if running else (0.0, 0.0)
    write_record(
        {
            "submission_id": specification["submission_id"],
            "attempt": specification["attempt"],
            "image_digest": image,
            "scheduler_job_id": os.environ.get("SLURM_JOB_ID"),
            "scheduler_job_name": os.environ.get("SLURM_JOB_NAME"),
            "scheduler_cluster": os.environ.get("SLURM_CLUSTER_NAME"),
            "scheduler_nodes": os.environ.get("SLURM_JOB_NODELIST"),
            "node": os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
            "container_started": code is not None,
            "runtime_usable": usable,
            "inputs_placed": unavailable is None,
            "exit_code": code,
            "stopped": "TERM" in signals,
            "message": message,
            "signals": signals,
            "carried": carried,
            "started_at": started_at,
            "ended_at": ended_at,
            "progress": progress.newest,
            "progress_skipped": progress.skipped,
            **kept,
            "usage": {
                "cpu_seconds": round(cpu_seconds, 3),
                "peak_rss_mib": round(peak_rss_mib, 1),
                "walltime_seconds": round(ended_at - started_at, 3),
            },
        }
    )
    news.say("ended")
    # The tasks of a parallel job are other programs' children, on other machines too.
    if adopted and not specification.get("tasks"):
        note_none_left(RECORD)
    if code is None:
        return NOT_STARTED if usable else UNUSABLE
    return code


def run(specification, image, running, heard):
    """Take up an earlier attempt's files and run the container.

    Return its end, what was taken up, when it began, and why an input could not be had.

    `running` is told of the container, which gets what was `heard` before there was one.
    """
    begins = time.time()
    wrong = objection(image, specification["image_digest"])
    if wrong:
        return (None, wrong, True), None, begins, None
    try:
        carried = carry_over(specification.get("earlier", ()))
    except OSError as error:
        wrong = "the files of the earlier attempt cannot be taken up: {}".format(error.strerror)
        return (None, wrong, True), None, begins, None
    unavailable = place_inputs(specification["inputs"])
    if unavailable:
        return (None, unavailable, True), carried, begins, unavailable
    if carried is not None:
        specification["env"]["BYOC_RESTART"] = "1"
    with open(BEGUN, "w"):
        begins = time.time()
    if specification.get("tasks"):
        from .tasks import Tasks

        running.append(Tasks(specification))
    else:
        running.append(Container(specification))
    container = running[0]
    for number in list(heard):
        container.signal(number)
    return container.run(), carried, begins, None
