"""How far an array is: every element notes its own numbers, and one of them at a time reports the sum.

The report is a progress report as a program may make it (progress.py): `step` of `steps` tasks are done.
"""

import fcntl
import os
import time

from . import ARRAY, ARRAY_COUNT, DONE, ELEMENTS, MOST_NAMED
from .light import loads, suppress

_REPORTER = ARRAY + "/reporter"


class Reporter:
    """Reports for all elements while it holds the lock; any other element takes over when it ends.

    It knows its files from wherever the process is.
    """

    def __init__(self, specification, news, here):
        """`here` is the directory of the attempt."""
        self._news, self._here = news, here
        self._seconds = max(1.0, specification["progress_seconds"])
        self._all = specification["array"]["total"]
        self._before = specification["array"]["succeeded"]
        self._cancelled = specification["array"].get("cancelled", 0)
        self._lock = None
        self._number = 0
        self._told, self._due = None, 0.0

    def is_due(self):
        """Whether the element's numbers are to be noted, and perhaps reported, now."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._seconds - 0.5
        return True

    def close(self):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def report(self):
        with suppress(OSError, ValueError):
            lock = self._take_over() if self._lock is None else self._lock
            if lock is None:
                return
            done = self._sum()
            if done == self._told:
                return
            self._told = done
            self._news.report(_progress(done, self._before, self._cancelled, self._all))
            os.pwrite(lock, b"%12d\n" % (self._number + 1), 0)
            self._number += 1

    def _take_over(self):
        lock = os.open(os.path.join(self._here, _REPORTER), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        self._lock = lock
        self._number = int(os.pread(lock, 20, 0) or b"0")
        self._news.go_on_after(self._number)
        return lock

    def _sum(self):
        with open(os.path.join(self._here, ARRAY_COUNT), encoding="utf-8") as file:
            count = int(file.read())
        done, which = {"succeeded": 0, "failed": 0, "cancelled": 0}, []
        for number in range(count):
            path = os.path.join(self._here, ELEMENTS, str(number), DONE)
            with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                found = loads(file.read())
                for name in done:
                    done[name] += found[name]
                which.extend(found.get("which", []))
        return dict(done, which=which[-MOST_NAMED:])


def _progress(done, before, cancelled_before, total):
    """A report; so many tasks had succeeded `before`, or were cancelled, when the attempt began."""
    succeeded, failed = done["succeeded"] + before, done["failed"]
    cancelled = done["cancelled"] + cancelled_before
    over = succeeded + failed + cancelled
    now = time.time()
    said = {
        "step": over,
        "steps": total,
        "fraction": over / float(total),
        "metrics": {
            "tasks_succeeded": float(succeeded),
            "tasks_failed": float(failed),
            **({"tasks_cancelled": float(cancelled)} if cancelled else {}),
        },
        "reported_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        + ".{:03d}Z".format(int(now * 1000) % 1000),
    }
    if failed:
        said["message"] = "failed of late: " + ", ".join(done["which"])
    return said
