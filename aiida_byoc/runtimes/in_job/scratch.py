"""Scratch space: a directory of the job's own on the compute node's disk, empty at first, gone in the end.

PLACE/byoc-CLUSTER-ID/         closed to others; where it is left, the Epilog removes it
                      lock     held in common by the tasks of the job on this node
                      data/    the container's /scratch
"""

import contextlib
import fcntl
import os
import shutil
import stat

from .placeholders import slurm_job


class Scratch:
    """The scratch space of one job on one node; its tasks there share it."""

    def __init__(self, asked):
        """`asked`: `{"mib": …, "place": a directory or None}`, or `None` for no scratch at all."""
        place = asked and (asked["place"] or os.environ.get("TMPDIR") or "/tmp")
        self._own = place and os.path.join(place, "byoc-" + slurm_job())
        self._lock = None

    @property
    def path(self):
        """What becomes the container's `/scratch`; empty without scratch."""
        return os.path.join(self._own, "data") if self._own else ""

    def make(self):
        """Make it, or take part in what another task of the job has made."""
        while self._own and self._lock is None:
            self._lock = self._entered()

    def remove(self):
        """Leave it; the last one removes it."""
        if self._lock is None:
            return
        if _alone(self._lock):
            _force_remove(self._own)
        os.close(self._lock)
        self._lock = None

    def _entered(self):
        """The lock of the directory, held in common; `None` where that was removed meanwhile."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._own, 0o700)
        name = os.path.join(self._own, "lock")
        try:
            found = os.lstat(self._own)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise PermissionError("{} is somebody else's".format(self._own))
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None
        if _alone(
            lock
        ):  # the first: what is there was left by a run that the job had before it was requeued
            _force_remove(self.path)
            os.makedirs(self.path, exist_ok=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.exists(name) and os.path.samestat(os.fstat(lock), os.stat(name)):
            return lock
        os.close(lock)
        return None


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
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)
