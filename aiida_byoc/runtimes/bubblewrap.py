"""bubblewrap on an unpacked OCI image: starts in milliseconds, needs no daemon, dies with its parent."""

from __future__ import annotations

from aiida_byoc.runtimes.container import Container
from aiida_byoc.runtimes.in_job import STATUS_FD, WORK

__all__ = ["PROGRAM", "command_line"]

PROGRAM = "bwrap"


def command_line(container: Container) -> list[str]:
    """Run the container with the job's `work` directory as its only writable place on disk.

    Read-only root, tmpfs `/tmp`, own user, pid, network, ipc and uts namespaces where the kernel allows them, no
    capabilities, no controlling terminal. bubblewrap sets no-new-privileges itself. The environment is the caller's
    (never on the command line, which every user of the compute node can read).
    `--json-status-fd` tells "the program exited with 1" from "there was no such program".
    """
    return [
        PROGRAM,
        *("--ro-bind", container.rootfs, "/"),
        *("--proc", "/proc"),
        *("--dev", "/dev"),
        *("--tmpfs", "/tmp"),  # noqa: S108  (the container's own)
        *("--bind", WORK, "/work"),
        *("--chdir", "/work"),
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *("--json-status-fd", STATUS_FD),
        "--",
        *container.argv,
    ]
