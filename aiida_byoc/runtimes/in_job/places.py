"""Places of a job's own on the compute node: empty at first, shared by its tasks there, gone with the last of them.

PLACE/byoc-CLUSTER-ID/          closed to others; where it is left, the Epilog removes it
                      lock      held in common by the tasks of the job on this node
                      scratch/  the container's `/scratch`, or
                      shm/      its `/dev/shm`
"""

import fcntl
import os
import stat

from .light import suppress
from .placeholders import slurm_job

SHARED_MEMORY_PLACE = "/dev/shm"
LOCK = "lock"


def scratch_place(asked):
    """Where a job gets scratch space that asked so: where its queue has it, else where its temporary files are."""
    return asked and (asked["place"] or os.environ.get("TMPDIR") or "/tmp")


class OwnPlace:
    """One directory of the job's own on this node; without a `place` there is none."""

    def __init__(self, place, name):
        self._own = place and os.path.join(place, "byoc-" + slurm_job())
        self.path = os.path.join(self._own, name) if self._own else ""
        self._name = os.path.join(self._own, LOCK) if self._own else ""
        self._lock = None

    def make(self):
        """Make it, or take part in what another task of the job has made."""
        while self._own and self._lock is None:
            self._lock = self._entered()

    def remove(self):
        """Leave it; the last one removes it."""
        if self._lock is None:
            return
        if _alone(self._lock) and self._is_lock(self._lock):
            self._take_away()
        os.close(self._lock)
        self._lock = None

    def _entered(self):
        """The lock of the directory, held in common; `None` where that was removed meanwhile."""
        try:
            make_private(self._own)
            lock = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None
        if _alone(lock) and self._is_lock(lock):
            # The first: what is there was left by a run that the job had before it was requeued.
            _force_remove(self.path)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if self._is_lock(lock):
            os.makedirs(self.path, exist_ok=True)
            return lock
        os.close(lock)
        return None

    def _is_lock(self, lock):
        """Whether that is still the directory's: who was the last has removed it, and another may have been made."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(lock), os.stat(self._name))
        return False

    def _take_away(self):
        """The lock goes last: until then whoever comes waits for it, and what is made after it is another's."""
        with suppress(OSError):  # another has come, or something is left for the Epilog
            for name in os.listdir(self._own):
                if name != LOCK:
                    _force_remove(os.path.join(self._own, name))
            os.unlink(self._name)
            os.rmdir(self._own)


def own_places(asked, shares_memory):
    """What a container has of them, by what they are called in its runtime's words."""
    return {
        "local_scratch": OwnPlace(scratch_place(asked), "scratch"),
        "shared_memory": OwnPlace(shares_memory and SHARED_MEMORY_PLACE, "shm"),
    }


def make_private(directory):
    """Make a directory that is closed to others, or take it as it is, if it is ours."""
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError("{} is somebody else's".format(directory))


def write_private(path, text):
    """Write a file that is closed to others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def remove(directory):
    """Remove it with all that is in it, as far as that can be done."""
    from shutil import rmtree

    rmtree(directory, ignore_errors=True)


def _alone(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _force_remove(directory):
    """Remove it, also what the container has closed to its own user."""
    for place, names, _ in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                with suppress(OSError):
                    os.chmod(path, 0o700)
    remove(directory)
