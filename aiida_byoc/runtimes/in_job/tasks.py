"""The containers of a parallel job: one for each task, started together on all nodes by `srun`.

This is the side of the batch script: it records the job once, whatever its tasks do. Each task is `task.py`.

    byoc_tasks/signals        numbers of the signals that the tasks are to send to their programs, a line each
    byoc_tasks/NUMBER.json    how that task ended; empty while it runs
"""

import json
import os
import shutil
import signal
import subprocess
import sys

from . import PROGRAM, RUNTIME, TASKS
from .ending import last_words, status
from .spawn import leash
from .streams import Streams

SIGNALS = os.path.join(TASKS, "signals")


class Tasks:
    """The tasks of a job: run once, signalled meanwhile."""

    def __init__(self, specification):
        self._specification = specification
        self._process = None
        self._results = []
        os.makedirs(TASKS, exist_ok=True)
        open(SIGNALS, "a", encoding="ascii").close()

    def run(self):
        """Run them to the end of all; one that fails ends the others."""
        srun = shutil.which("srun")
        if srun is None:
            return None, "srun is not on the compute node's PATH", False
        streams = Streams(self._specification["caps"]["max_log_bytes"])
        try:
            self._process = subprocess.Popen(
                [srun, *self._words()],
                stdin=subprocess.DEVNULL,
                stdout=streams.out,
                stderr=streams.err,
                preexec_fn=leash(signal.SIGTERM),  # noqa: PLW1509  (it takes no lock)
            )
        except OSError as error:
            return None, str(error), False
        finally:
            streams.release()
        streams.start()
        code = status(self._process.wait())
        streams.finish()
        shutil.rmtree(RUNTIME, ignore_errors=True)
        # By number: a list of what is in the directory may be an old one, where that lies on a network.
        numbers = range(self._specification["tasks"]["count"])
        self._results = [result for result in map(_result, numbers) if result is not None]
        return _ending(self._results, code, streams)

    def signal(self, number):
        """Have each task send its program a signal.

        By a file that they read: `srun` would signal every process of a task, the runtime's own among them, and kill
        all on SIGTERM (measured, 22.05). That one Slurm sends to the tasks itself, unless it is meant as a warning.
        """
        if number != signal.SIGTERM or self._specification.get("signal") == "TERM":
            with open(SIGNALS, "a", encoding="ascii") as file:
                file.write("{}\n".format(int(number)))
                file.flush()
                os.fsync(file.fileno())

    def used(self):
        """CPU seconds of all tasks that told, and the largest process of any, MiB."""
        told = [result for result in self._results if "code" in result]
        seconds = sum(result["cpu_seconds"] for result in told)
        return seconds, max((result["peak_rss_mib"] for result in told), default=0.0)

    def _words(self):
        return [
            *("--mpi=pmi2", "--kill-on-bad-exit=1", "--input=none", "--export=ALL"),
            "--cpus-per-task={}".format(self._specification["tasks"]["cpus"]),
            *(sys.executable, "-B", "-m", PROGRAM + ".task"),
        ]


def _result(number):
    try:
        with open(os.path.join(TASKS, "{}.json".format(number)), encoding="utf-8") as file:
            return json.loads(file.read() or "{}")
    except OSError:
        return None


def _ending(results, code, streams):
    """How the job ended: by the worst of the tasks that ended by themselves, since a failure ends all others too.

    Those get SIGTERM from Slurm, as their programs do, which may be first to know.
    """
    if not results:
        said = last_words(streams).rpartition("\n")[2] or "srun did not say why"
        return None, "the tasks were not started: " + said, False
    ended = [result for result in results if "code" in result and not result["stopped"]]
    own = [result for result in ended if result["code"] != 128 + signal.SIGTERM]
    for result in own:
        if result["code"] is None:
            where = "task {number} on {node}: {message}".format(**result)
            return None, where, result["usable"]
    return max((result["code"] for result in own), default=0) or code, None, True
