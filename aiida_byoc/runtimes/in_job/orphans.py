"""What a runtime leaves behind when it returns before its container's last process."""

import os

from .light import prctl, suppress

_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Become the parent of what the runtime leaves behind (prctl(2)).

    bubblewrap does not wait for its container's first process: without this, its resource usage is lost, and it could
    still write while the outputs are measured.
    """
    with suppress(ImportError, OSError, AttributeError):  # without that of the C library
        prctl()(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_orphans():
    """Wait for all of them; return what each has used, as getrusage(2) has it."""
    used = []
    with suppress(ChildProcessError):
        while True:
            used.append(os.wait3(0)[2])
    return used
