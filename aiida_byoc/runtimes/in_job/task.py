"""One task of a parallel job, started by `srun` as `python3 -m byoc_in_job.task`: one container, on this node.

PMI is a conversation over a descriptor that Slurm's daemon has opened (`PMI_FD`); the container gets it as number 3,
which every runtime can hand over, and of the variables only those that tell the task which one it is.
"""

import json
import os
import signal
import sys
import threading
import time

from . import NOT_STARTED, SPECIFICATION, TASKS, UNUSABLE
from .container import Container
from .limits import no_core_dumps
from .spawn import adopt_orphans
from .tasks import SIGNALS

_PMI_FD = 3
_SECONDS_BETWEEN_LOOKS = 1.0


def main():
    number = int(os.environ["SLURM_PROCID"])
    with open(SPECIFICATION, encoding="utf-8") as file:
        specification = json.load(file)
    own = os.path.join(TASKS, "{}.json".format(number))
    _write(own, "")
    no_core_dumps()
    adopt_orphans()
    container = Container(specification, task=number, descriptors=_pmi())
    stopped = []

    def stop(received, _):
        stopped.append(received)
        container.signal(received)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_pass_on, args=(container,), daemon=True).start()
    code, message, usable = container.run()
    seconds, mib = container.used()
    told = {
        "number": number,
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "code": code,
        "message": message,
        "usable": usable,
        "stopped": bool(stopped),
        "cpu_seconds": seconds,
        "peak_rss_mib": mib,
    }
    _write(own, json.dumps(told))
    if code is None:
        return NOT_STARTED if usable else UNUSABLE
    return code


def _pass_on(container):
    """Send the program what the batch script's program was sent; opened anew each time, for what NFS keeps."""
    passed = 0
    while True:
        with open(SIGNALS, encoding="ascii") as file:
            heard = [int(line) for line in file if line.endswith("\n")]
        for number in heard[passed:]:
            container.signal(number)
        passed = len(heard)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _pmi():
    """The descriptors that the container gets."""
    opened = os.environ.get("PMI_FD", "")
    if not opened.isdigit():
        return ()
    if int(opened) != _PMI_FD:
        os.dup2(int(opened), _PMI_FD)
        os.close(int(opened))
    os.set_inheritable(_PMI_FD, True)
    os.environ["PMI_FD"] = str(_PMI_FD)
    return (_PMI_FD,)


def _write(path, text):
    draft = path + ".tmp"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)


if __name__ == "__main__":
    sys.exit(main())
