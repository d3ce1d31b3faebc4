"""What a runtime is asked to run, and how it is started in a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

__all__ = ["SQUASHFS", "Container", "Launch", "Runtime", "Word"]

SQUASHFS = "rootfs.squashfs"
"""What an image is called in a single file, beside its directory `rootfs`."""

Word = str | list[str]
"""A word of a command line, or a group of words that stands there once for each value of its placeholder."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container.

    Attributes:
        rootfs: the unpacked image, read-only.
        memory_mib: the job's memory, MiB; half of it is the most that `/tmp` may hold.
        processes: how many processes and threads there may be at a time.
        inputs: what is mounted, read-only: (place in the job's directory, name below /work).
        network: the machine's network instead of none.
        gpus: how many GPUs Slurm has given to the job.
        scratch: whether the job has scratch space, at `/scratch`.
        is_task: whether it is one of several that `srun` starts together; descriptor 3 is theirs to talk on.
        shares_memory: whether other tasks of the job run on the same node.
    """

    rootfs: str
    memory_mib: int
    processes: int = 4096
    inputs: Sequence[tuple[str, str]] = ()
    network: bool = False
    gpus: int = 0
    scratch: bool = False
    is_task: bool = False
    shares_memory: bool = False

    @property
    def tmp_bytes(self) -> int:
        """The size of `/tmp`."""
        return self.memory_mib * 2**20 // 2


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a container is started, signalled and understood; the in-job program knows no runtime by name.

    Words, files and environment hold placeholders (`runtimes/in_job/placeholders.py`), since much is known only on the
    compute node.

    Attributes:
        programs: what must be on the compute node's PATH.
        needs: files that must be on the compute node.
        command: the runtime's own words; the program's follow, literally.
        env: the runtime's environment; `None`: it is the container's. Values are never on a command line, which every
            user of the compute node can read.
        env_prefix: stands before the name of each variable of the container in the runtime's environment, all but HOME,
            which a runtime that works so sets itself; `None`: they are not there.
        inherited: beginnings of the names of variables that the runtime gets from the job.
        env_line: how a variable of the container is written into the file `{environment}`, a format of `name` and
            `value`; `None`: there is no such file.
        files: text of files that are made first, by their path; closed to others.
        started: what proves that the program was started. `status`: its exit status, told on `{status_fd}`; `pidfile`:
            a pid in `{pidfile}`; `None`: nothing, the last words have to do.
        status: where a pidfile proves the start, the command that waits for the end and prints the exit status.
        not_started: matches a line of the runtime's when it works, but the program cannot be started.
        unusable: where nothing proves a start, matches a line of the runtime's when it does not work itself.
        program: which process gets the signals that are meant for the container's program. `grandchild`: the only
            child of the one told as `child-pid` on `{status_fd}`; `pidfile`: the one in `{pidfile}`; `runtime`: the
            runtime's own. The latter two pass them on.
        orphaned: the signal that the runtime gets when the in-job program dies: one that ends its container.
        leashed: it asks the kernel by itself to be killed when who started it dies.
        afterwards: commands to run once it is over, however it ended.
    """

    programs: Sequence[str]
    command: Sequence[Word]
    needs: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    env_prefix: str | None = None
    inherited: Sequence[str] = ()
    env_line: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    started: Literal["status", "pidfile"] | None = None
    status: Sequence[Word] = ()
    not_started: str | None = None
    unusable: str | None = None
    program: Literal["grandchild", "pidfile", "runtime"] = "runtime"
    orphaned: Literal["KILL", "TERM"] = "KILL"
    leashed: bool = False
    afterwards: Sequence[Sequence[Word]] = ()

    def to_json(self) -> dict[str, Any]:
        """What the in-job program reads."""
        return asdict(self)


class Runtime(Protocol):
    """What each module of a runtime offers."""

    @property
    def PROGRAMS(self) -> tuple[str, ...]:  # noqa: N802  (a module's constant)
        """What must be on the compute node's PATH."""

    @property
    def HELP(self) -> str:  # noqa: N802
        """Where it comes from, for an operator who has not got it."""

    def launch(self, container: Container) -> Launch:
        """Say how to start a container, hardened as far as this runtime can."""
