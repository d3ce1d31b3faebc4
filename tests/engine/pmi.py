"""A parallel program without a library: it speaks PMI-1 on the descriptor that Slurm opened. Runs in a container.

    python3 pmi.py SCRIPT

Every task tells its host's name to all others, waits for them, and runs SCRIPT, which knows `rank`, `size`, `hosts` (of
all tasks, by rank) and `barrier`.
"""

import json  # noqa: F401  (for scripts)
import os
import socket
import sys
import time  # noqa: F401

_wire = socket.socket(fileno=int(os.environ["PMI_FD"]))
_answers = _wire.makefile("r")


def ask(command, **words):
    """Send a command; return the fields of the answer."""
    line = " ".join([f"cmd={command}", *(f"{name}={value}" for name, value in words.items())])
    _wire.sendall(line.encode() + b"\n")
    answer = dict(field.split("=", 1) for field in _answers.readline().split())
    if answer.get("rc", "0") != "0":
        raise RuntimeError(f"{line}: {answer}")
    return answer


def barrier():
    """Wait for all tasks."""
    ask("barrier_in")


ask("init", pmi_version=1, pmi_subversion=1)
rank, size = int(os.environ["PMI_RANK"]), int(os.environ["PMI_SIZE"])
space = ask("get_my_kvsname")["kvsname"]
ask("put", kvsname=space, key=f"host-{rank}", value=socket.gethostname())
barrier()
hosts = [ask("get", kvsname=space, key=f"host-{other}")["value"] for other in range(size)]
exec(sys.argv[1])  # noqa: S102
ask("finalize")
