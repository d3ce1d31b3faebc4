"""How many processes a container may have, and what becomes of it when the program of the job dies."""

import resource

from .light import os, read, suppress
from .placeholders import slurm_job

_USUAL = "/sys/fs/cgroup/pids"


def no_core_dumps():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_processes(pid, most):
    """Let a process in the container's user namespace, and its children from now on, have that many threads.

    What counts are those in the namespace alone (Linux 5.14 or newer; before that, all of the user's on the machine).
    Root is not bound: `ProcessCount` binds it.
    """
    with suppress(ValueError, OSError):  # lower already, or gone already
        resource.prlimit(pid, resource.RLIMIT_NPROC, (most, most))


class ProcessCount:
    """A cgroup (version 1) that counts the processes of a container which runs as root; nothing for any other user.

    Version 2 has one hierarchy, which is Slurm's: to leave its cgroup would be to leave the memory limit.

    Whoever starts the container enters meanwhile, which its processes inherit. A thread that moves itself by `tasks`
    does so at once; to move another process takes the kernel up to 20 ms, in which no process of the machine can fork.
    """

    def __init__(self, most):
        """`most` is `None` where somebody else counts already."""
        is_ours = os.geteuid() == 0 and most is not None
        hierarchy, self._home = _hierarchy() if is_ours else ("", "")  # type: str, str
        self._path = hierarchy and os.path.join(hierarchy, "byoc-" + slurm_job())
        if self._path:
            try:
                os.makedirs(self._path, exist_ok=True)
                self._write(os.path.join(self._path, "pids.max"), most)
            except OSError:  # not ours to change: a container, perhaps
                self._path = ""

    def enter(self):
        """Count this thread, and what it starts from now on."""
        if self._path:
            with suppress(OSError):
                self._write(os.path.join(self._path, "tasks"), 0)

    def leave(self):
        """Count this thread no more."""
        if self._path:
            with suppress(OSError):
                self._write(os.path.join(self._home, "tasks"), 0)

    def close(self):
        """Remove the cgroup; while processes are left in it, that is for the Epilog."""
        if self._path:
            with suppress(OSError):
                os.rmdir(self._path)

    def _write(self, path, value):
        file = os.open(path, os.O_WRONLY)
        try:
            os.write(file, b"%d\n" % value)
        finally:
            os.close(file)


def _hierarchy():
    """Where the cgroups of the controller `pids` are, and this process's there; empty without one of version 1."""
    own = _own()
    if own and os.path.exists(_USUAL + own):
        return _USUAL, _USUAL + own
    if own:  # the kernel takes longer for this list than for all else here
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                kind, _, options = rest.split(None, 2)
                root, place = fields.split()[3:5]
                if kind == "cgroup" and "pids" in options.strip().split(","):
                    below = own[len(root.rstrip("/")) :] if own.startswith(root) else ""
                    return place, place + below
    return "", ""


def _own():
    """The cgroup of this process; empty where none of version 1 counts processes."""
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "pids" in controllers.split(","):
            return path
    return ""
