"""bubblewrap on an unpacked OCI image: starts in milliseconds, needs no daemon, dies with its parent."""

from __future__ import annotations

from aiida_byoc.runtimes.container import Container, Launch, Word
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    GATE_FD,
    GID,
    GPU_DEVICE,
    HOST,
    KEY_FD,
    LOCAL_SCRATCH,
    RESOLVER_FILE,
    SHARED_MEMORY,
    STATUS_FD,
    UID,
)

__all__ = ["HELP", "PROGRAMS", "launch"]

PROGRAMS = ("bwrap",)
HELP = "Debian: bubblewrap, version 0.8 or newer"


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk.

    bubblewrap sets no-new-privileges itself. Its `/proc` leaves `/proc/sys` writable for who is root outside (measured:
    766 settings of the machine), hence the read-only mounts over it. `--disable-userns` keeps the container from
    becoming root in a user namespace of its own. `--block-fd` holds it back until its limits are set; that pipe's
    other end is its own too (`--sync-fd`), for if the in-job program dies first, nothing may end the wait.
    `--json-status-fd` tells "the program exited with 1" from "there was no such program".
    """
    size = str(container.tmp_bytes)
    shared: list[Word] = ["--size", size, "--tmpfs", "/dev/shm"]
    if container.shares_memory:
        shared = ["--bind", SHARED_MEMORY, "/dev/shm"]
    granted: list[Word] = []
    if container.network:
        granted.append(["--ro-bind", RESOLVER_FILE, RESOLVER_FILE])
    else:
        granted.append("--unshare-net")
    if container.gpus:
        granted += [["--dev-bind", GPU_DEVICE, GPU_DEVICE], "--ro-bind", "/sys", "/sys"]
    if container.scratch:
        granted += ["--bind", LOCAL_SCRATCH, "/scratch"]
    return Launch(
        programs=PROGRAMS,
        command=[
            "bwrap",
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--disable-userns"),
            *("--uid", UID, "--gid", GID, "--hostname", HOST),
            *("--ro-bind", container.rootfs, "/"),
            *("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"),
            *("--ro-bind-try", "/proc/sysrq-trigger", "/proc/sysrq-trigger"),
            *("--dev", "/dev"),
            *shared,
            *("--remount-ro", "/dev"),
            *("--size", size, "--tmpfs", "/tmp"),
            *granted,
            *("--bind", WORK, "/work", "--chdir", "/work"),
            *(w for place, name in container.inputs for w in ("--ro-bind", place, f"/work/{name}")),
            *("--cap-drop", "ALL", "--new-session", "--die-with-parent"),
            *("--json-status-fd", STATUS_FD, "--block-fd", GATE_FD, "--sync-fd", KEY_FD),
            "--",
        ],
        started="status",
        not_started="^bwrap: execvp ",
        program="grandchild",
        leashed=True,
    )
