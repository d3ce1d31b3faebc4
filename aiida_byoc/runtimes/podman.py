"""Podman, rootless or root, on the unpacked OCI image: an overlay over the store's own rootfs, never a pull.

Each job has a podman of its own: storage, locks, state and configuration lie in the job's scratch directory, nothing is
read from the user's home. `conmon` takes the container out of Slurm's sight, so the node needs our Epilog
(docs/runtimes.md), which removes what carries the job's label.
"""

from __future__ import annotations

from aiida_byoc.runtimes.container import Container, Launch, Word
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    AS_ROOT,
    DIRECTORY,
    ENVIRONMENT,
    GID,
    HOST,
    LOCAL_SCRATCH,
    OPEN_FILES,
    PATH,
    PIDFILE,
    PROCESSES,
    SCRATCH,
    SECCOMP,
    SHARED_MEMORY,
    SLURM_JOB,
    UID,
    WITH_SUBORDINATES,
)

__all__ = ["HELP", "LABEL", "PROGRAMS", "launch"]

PROGRAMS = ("podman", "runc", "catatonit")
HELP = "Debian: podman runc catatonit uidmap"
LABEL = "slurm_job"
"""The label by which the Epilog finds a job's containers."""

_CONFIGURATION = """\
[containers]
default_ulimits = []
log_driver = "passthrough"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""
"""runc: crun refuses machines whose controllers are spread over both versions of cgroups.
passthrough: the program writes into our pipes itself; by way of conmon, a short program's last words could be lost."""

_ROOT_INSIDE = 2_000_000_000
"""Where Slurm runs the job as root, what the container calls root is a uid that nobody has."""


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk.

    `--init`, since a program that is process 1 ignores signals which it does not handle. What `podman run` returns is
    not to be trusted: 125 to 127 may be its own, and rootless it says 0 when it gets SIGTERM. So a pidfile, written
    once the container has been made, tells whether there was one, and `podman wait` how it ended.
    """
    podman = [
        *("podman", "--log-level=fatal", "--storage-driver=overlay"),
        *(f"--root={SCRATCH}/graph", f"--runroot={SCRATCH}/run", f"--tmpdir={SCRATCH}/tmp"),
    ]
    size, memory = container.tmp_bytes, container.memory_mib * 2**20
    as_root = [
        AS_ROOT,
        *(f"--uidmap=0:{_ROOT_INSIDE}:1", f"--uidmap={UID}:0:1"),
        *(f"--gidmap=0:{_ROOT_INSIDE}:1", f"--gidmap={GID}:0:1"),
        f"--user={UID}:{GID}",
        *(f"--memory={memory}", f"--memory-swap={memory}", f"--pids-limit={PROCESSES}"),
    ]
    granted: list[Word] = (
        ["--network=host"] if container.network else ["--network=none", "--no-hosts"]
    )
    if container.gpus:
        granted.append("--device=nvidia.com/gpu=all")
    if container.scratch:
        granted.append(f"--volume={LOCAL_SCRATCH}:/scratch")
    if container.is_task:
        granted.append("--preserve-fds=1")
    if container.shares_memory:
        granted.append(f"--volume={SHARED_MEMORY}:/dev/shm")
    return Launch(
        programs=PROGRAMS,
        command=[
            *podman,
            *(
                "run",
                "--name=job",
                "--init",
                f"--pidfile={PIDFILE}",
                f"--label={LABEL}={SLURM_JOB}",
            ),
            *(
                "--read-only",
                "--read-only-tmpfs=false",
                f"--tmpfs=/tmp:rw,size={size},U,notmpcopyup",
            ),
            *(f"--shm-size={size}", "--cap-drop=all", "--security-opt=no-new-privileges"),
            *("--security-opt=mask=/sys/fs/cgroup", "--systemd=false", f"--hostname={HOST}"),
            *("--pid=private", "--ipc=private", "--uts=private", "--cgroupns=private"),
            *(f"--ulimit=nproc={PROCESSES}:{PROCESSES}", f"--ulimit=nofile={OPEN_FILES}"),
            *("--ulimit=core=0:0", "--unsetenv-all", "--http-proxy=false"),
            f"--env-file={ENVIRONMENT}",
            [f"--security-opt=seccomp={SECCOMP}"],
            *granted,
            [WITH_SUBORDINATES, "--userns=keep-id"],
            as_root,
            *(f"--volume={DIRECTORY}/{WORK}:/work", "--workdir=/work"),
            *(f"--volume={DIRECTORY}/{place}:/work/{name}:ro" for place, name in container.inputs),
            *("--rootfs", f"{container.rootfs}:O"),
        ],
        env={
            "PATH": PATH,
            "HOME": SCRATCH,
            "XDG_RUNTIME_DIR": SCRATCH,
            "TMPDIR": SCRATCH,
            "CONTAINERS_CONF": f"{SCRATCH}/containers.conf",
        },
        env_line="{name}={value}",
        files={f"{SCRATCH}/containers.conf": _CONFIGURATION},
        started="pidfile",
        status=[*podman, "wait", "job"],
        program="pidfile",
        not_started=r"^ERROR \(catatonit:\d+\): failed to exec",
        orphaned="TERM",
        # The second ends the process that holds a user's namespaces between two calls.
        afterwards=[
            [*podman, "rm", "--all", "--force", "--time=0"],
            [*podman, "system", "migrate"],
        ],
    )
