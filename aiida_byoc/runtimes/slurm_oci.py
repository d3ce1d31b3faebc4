"""Slurm's own OCI containers (`srun --container`): a bundle made for the job, run by whatever `oci.conf` names.

Slurm runs them rootless only, and from version 23.02 with a root file system that lies elsewhere than in the bundle.
Where a compute node has no `oci.conf` Slurm would run the program without any container: the job looks for it first.
"""

from __future__ import annotations

import json
from typing import Any

from aiida_byoc.runtimes.container import Container, Launch
from aiida_byoc.runtimes.in_job import WORK
from aiida_byoc.runtimes.in_job.placeholders import (
    DIRECTORY,
    ENV_JSON,
    GPU_MOUNTS,
    HOST_GID,
    HOST_UID,
    LOCAL_SCRATCH,
    OCI_CONF,
    PROCESSES,
    RUNTIME_DIRECTORY,
    SLURM_JOB,
)
from aiida_byoc.runtimes.pyxis import NOT_STARTED, STEP, UNUSABLE

__all__ = ["HELP", "PROGRAMS", "launch"]

PROGRAMS = ("srun",)
HELP = "Slurm 23.02 or newer with oci.conf (https://slurm.schedmd.com/containers.html)"

_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
]
_CLOSED = ["nosuid", "noexec", "nodev"]


def launch(container: Container) -> Launch:
    """Run the container with the job's `work` directory as its only writable place on disk.

    Slurm fills in the program's words, and adds its `SLURM_*` variables to those of the bundle. Root inside is the
    job's user outside, without privileges: a rootless runtime can map no other.
    """
    text = json.dumps(_bundle(container)).replace(f', "{GPU_MOUNTS}"', GPU_MOUNTS)
    for json_itself in (ENV_JSON, HOST_UID, HOST_GID, PROCESSES):
        text = text.replace(f'"{json_itself}"', json_itself)
    return Launch(
        programs=PROGRAMS,
        needs=(OCI_CONF,),
        command=[*STEP, "--export=NIL", f"--container={RUNTIME_DIRECTORY}"],
        inherited=("SLURM_",),
        files={f"{RUNTIME_DIRECTORY}/config.json": text},
        not_started=NOT_STARTED,
        unusable=UNUSABLE,
    )


def _bundle(container: Container) -> dict[str, Any]:
    """The bundle's configuration (OCI runtime-spec, config.md)."""
    kinds = ["pid", "ipc", "uts", "mount", "user", *([] if container.network else ["network"])]
    size = f"size={container.tmp_bytes}"
    return {
        "ociVersion": "1.0.2",
        "root": {"path": container.rootfs, "readonly": True},
        "hostname": SLURM_JOB,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/false"],
            "env": ENV_JSON,
            "cwd": "/work",
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_NPROC", "soft": PROCESSES, "hard": PROCESSES},
            ],
        },
        "mounts": [
            _mount("/proc", "proc", "proc", *_CLOSED),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "mode=755", "size=64k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "mode=620"),
            _mount("/dev/shm", "tmpfs", "shm", *_CLOSED, "mode=1777", size),
            _mount("/sys", "none", "/sys", *_CLOSED, "rbind", "ro"),
            _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", size),
            _mount("/work", "none", f"{DIRECTORY}/{WORK}", "nosuid", "nodev", "rbind", "rw"),
            *(
                _mount(
                    f"/work/{name}",
                    "none",
                    f"{DIRECTORY}/{place}",
                    "nosuid",
                    "nodev",
                    "rbind",
                    "ro",
                )
                for place, name in container.inputs
            ),
            *(
                [_mount("/scratch", "none", LOCAL_SCRATCH, "rbind", "rw")]
                if container.scratch
                else []
            ),
            *([GPU_MOUNTS] if container.gpus else []),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [{"containerID": 0, "hostID": HOST_UID, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": HOST_GID, "size": 1}],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": [*options]}
