"""Charliecloud's `ch-run` on the unpacked OCI image, in namespaces that it does not make itself.

`ch-run` isolates files alone, and where the job's user is root its container keeps all of root's privileges. So
`unshare` makes the other namespaces, and `in_job/cell.py`, their first process, shuts the machine out before it calls
`ch-run`, reaps orphans, and tells how the program ended: `ch-run` exits with 1 for its own failures too.
"""

from __future__ import annotations

from aiida_byoc.runtimes.container import Container, Launch, Word
from aiida_byoc.runtimes.in_job import PROGRAM, WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    CELL,
    ENVIRONMENT,
    GATE_FD,
    GID,
    HOST,
    LOCAL_SCRATCH,
    PATH,
    PYTHON,
    SHARED_MEMORY,
    STATUS_FD,
    UID,
    USER,
)

__all__ = ["HELP", "PROGRAMS", "launch"]

PROGRAMS = ("ch-run", "unshare")
HELP = "Debian: charliecloud-runtime, util-linux"


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk.

    The users are the image's own (`--no-passwd`: an image need not have a file of them). `ch-run` adds the variable
    `CH_RUNNING`.
    """
    network: list[Word] = [] if container.network else ["--net"]
    granted = ["network"] * container.network + ["gpus"] * bool(container.gpus)
    if container.shares_memory:
        granted.append(f"shm={SHARED_MEMORY}")
    return Launch(
        programs=PROGRAMS,
        command=[
            *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"),
            *("--ipc", "--uts", "--cgroup"),
            *network,
            *("--", PYTHON, "-B", "-m", f"{PROGRAM}.cell", STATUS_FD, GATE_FD, CELL),
            *(str(container.tmp_bytes), HOST, ",".join(granted)),
            ",".join(place for place, _ in container.inputs),
            *("ch-run", "--unset-env=*", f"--set-env={ENVIRONMENT}", "--env-no-expand"),
            *(
                "--no-passwd",
                "--private-tmp",
                f"--bind={CELL}/tmp:/tmp",
                f"--bind={WORK}:/work",
                "--cd=/work",
            ),
            *([f"--bind={LOCAL_SCRATCH}:/scratch"] if container.scratch else []),
            *(f"--bind={place}:/work/{name}" for place, name in container.inputs),
            *(f"--uid={UID}", f"--gid={GID}", container.rootfs, "--"),
        ],
        env={"PATH": PATH, "USER": USER},
        env_line="{name}='{value}'",
        started="status",
        not_started=r"^ch-run\[\d+\]: error: can't execve\(2\)",
        program="grandchild",
    )
