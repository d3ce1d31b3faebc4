"""How far an array is: every element notes its own numbers, and one of them at a time reports the sum.

The report is a progress report as a program may make it (progress.py): `step` of `steps` tasks are done.
"""

import fcntl
import os
import time

from . import DONE, ELEMENTS, ENDED, MESSAGE, MOST_NAMED, REPORTER
from .light import dumps, loads, read, suppress

_LONGEST = 1 << 16
_MOST_OPEN = 256
_NONE = {"succeeded": 0, "failed": 0, "cancelled": 0, "which": []}
_OF_LATE = "failed of late: "


class Reporter:
    """Reports for all elements while it holds the lock; any other element takes over when it ends.

    It knows its files from wherever the process is.
    """

    def __init__(self, specification, news, here):
        """`here` is the directory of the attempt."""
        self._news, self._here = news, here
        self._seconds = max(1.0, specification["progress_seconds"])
        array = specification["array"]
        self._all, self._before = array["total"], array["succeeded"]
        self._cancelled = array.get("cancelled", 0)
        self._pack = array["pack"]
        self._lock = None
        # Reports so far; of so many elements from the first on all have ended, and this is their sum.
        self._reports, self._ended, self._known = 0, 0, _NONE
        self._on_disk = set()  # type: set[int]
        self._told, self._due = None, 0.0

    def is_due(self):
        """Whether the element's numbers are to be noted, and perhaps reported, now."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._seconds - 0.5
        return True

    def close(self):
        """Leave it to another element."""
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
            self._reports += 1
            noted = dumps([self._reports, self._ended, self._known])
            os.pwrite(lock, noted.encode() + b"\n", 0)

    def _take_over(self):
        lock = os.open(os.path.join(self._here, REPORTER), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        self._lock = lock
        noted, _, _ = os.pread(lock, _LONGEST, 0).partition(b"\n")
        if noted:
            self._reports, self._ended, self._known = loads(noted.decode())
        self._news.go_on_after(self._reports)
        return lock

    def _sum(self):
        """The sum of all elements; of those that had all ended at the last report it is known."""
        elements = os.path.join(self._here, ELEMENTS)
        begun = sorted(int(name) for name in os.listdir(elements))
        places = {each: os.path.join(elements, str(each)) for each in begun if each >= self._ended}
        ended = {each for each in places if os.path.exists(os.path.join(places[each], ENDED))}
        _sync([os.path.join(places[each], ENDED) for each in ended - self._on_disk])
        self._on_disk |= ended
        done = self._known
        for number, place in places.items():
            has_ended = number in ended
            with suppress(OSError, ValueError):
                noted = _last_line(place) if has_ended else read(os.path.join(place, DONE))
                closed = has_ended and not noted
                done = _added(done, {"cancelled": self._share(number)} if closed else loads(noted))
            if has_ended and number == self._ended:
                self._ended, self._known = number + 1, done
        return done

    def _share(self, number):
        """How many tasks an element has that the node has closed."""
        to_run = self._all - self._before - self._cancelled
        return min(self._pack, to_run - number * self._pack)


def _sync(paths):
    """Have these files on the disk, and not each by a commit of the file system of its own."""
    for first in range(0, len(paths), _MOST_OPEN):
        files = [os.open(path, os.O_RDONLY) for path in paths[first : first + _MOST_OPEN]]
        try:
            for file in files:  # Linux begins to write them then, and waits for none
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            for file in files:
                os.fsync(file)
        finally:
            for file in files:
                os.close(file)


def _last_line(place):
    """The last line that an element wrote: the numbers of its tasks."""
    with open(os.path.join(place, ENDED), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST))
        return file.read().decode().rstrip("\n").rpartition("\n")[2]


def _added(done, found):
    found = dict(_NONE, **found)
    added = {name: done[name] + found[name] for name in done}
    return dict(added, which=added["which"][-MOST_NAMED:])


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
        names = done["which"]
        while len(", ".join(names)) > MESSAGE - len(_OF_LATE):
            names = names[1:]
        said["message"] = _OF_LATE + ", ".join(names)
    return said
