"""What the container reports of its own progress: read from its window to the disk, where it may do as it likes.

So nothing there is followed, waited for or believed: links, pipes and devices are left alone, of a file the last 4 KiB
are read, and of those the lines that are reports by `docs/contracts/event-execution-lifecycle.md`.
"""

import contextlib
import json
import math
import os
import re
import stat
import threading
import time
from datetime import datetime, timezone

from . import MESSAGE, PROGRESS, WORK

TAIL = 4096
METRICS = 16
WHOLE = 2**53 - 1
PATIENCE = 5.0


class Follower:
    """Follows the file beside the container, in a thread, and passes the newest report on as news."""

    def __init__(self, news, seconds):
        self.newest = None
        self.skipped = 0
        self._news = news
        self._seconds = seconds
        self._seen = None
        self._offset = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self):
        """Make the file, so that a shell may append to it, and begin."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.join(WORK, os.path.dirname(PROGRESS)), exist_ok=True)
            os.close(os.open(os.path.join(WORK, PROGRESS), os.O_WRONLY | os.O_CREAT, 0o644))
        self._thread.start()

    def finish(self):
        """Read what is left; give up on a disk that does not answer."""
        self._ended.set()
        self._thread.join(PATIENCE)

    def _follow(self):
        due = 0.0
        untold = False
        pause = min(max(self._seconds / 10, 0.1), 5.0)
        while not self._ended.wait(pause):
            untold = self._look(complete=False) or untold
            if untold and time.monotonic() >= due:
                self._news.report(self.newest)
                due = time.monotonic() + self._seconds
                untold = False
        self._look(complete=True)

    def _look(self, complete):
        """Whether there is a newer report; `complete`: nobody writes any more, so the last line may lack its end."""
        try:
            lines = self._lines(complete)
        except OSError:
            return False
        newer = False
        for line in lines:
            found = report(line)
            if found is None:
                self.skipped += 1
                continue
            now = datetime.now(timezone.utc)
            found["reported_at"] = now.strftime("%Y-%m-%dT%H:%M:%S.") + "{:03d}Z".format(
                now.microsecond // 1000
            )
            self.newest = found
            newer = True
        return newer

    def _lines(self, complete):
        """The lines that were not read before, of the last 4 KiB."""
        descriptor = open_inside(WORK, PROGRESS)
        if descriptor is None:
            return []
        try:
            is_now = os.fstat(descriptor)
            seen = (is_now.st_dev, is_now.st_ino, is_now.st_size, is_now.st_mtime_ns)
            if seen == self._seen and not complete:
                return []
            if self._seen is None or seen[:2] != self._seen[:2] or is_now.st_size < self._offset:
                self._offset = 0
            self._seen = seen
            start = max(self._offset, is_now.st_size - TAIL)
            text = os.pread(descriptor, TAIL, start)
        finally:
            os.close(descriptor)
        begin = 0 if start == self._offset else text.find(b"\n") + 1
        end = len(text) if complete else text.rfind(b"\n") + 1
        if end:
            self._offset = start + end
        return [line for line in text[begin:end].split(b"\n") if line.strip()]


def open_inside(directory, name):
    """Open a regular file below a directory that somebody else may change meanwhile; `None` if it is none."""
    parts = name.split("/")
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        if not stat.S_ISREG(os.stat(parts[-1], dir_fd=place, follow_symlinks=False).st_mode):
            return None
        # If it became a pipe by now, opening it does not wait, and a device is closed again unread.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(parts[-1], flags, dir_fd=place)
    finally:
        os.close(place)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def report(line):
    """The report in a line, cut into shape; `None` if it is none."""
    try:
        told = json.loads(line.decode("utf-8"))
        found = {name: FIELDS[name](told[name]) for name in FIELDS if told.get(name) is not None}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found or None


def _number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    value = float(value)
    if not math.isfinite(value):
        raise ValueError
    return value


def _fraction(value):
    value = _number(value)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _whole(least):
    def read(value):
        number = _number(value)
        if number != value or number != int(number) or not least <= number <= WHOLE:
            raise ValueError
        return int(number)

    return read


def _line(value):
    if not isinstance(value, str):
        raise ValueError
    return "".join(each if each.isprintable() else " " for each in value[:MESSAGE])


def _metrics(value):
    if not isinstance(value, dict) or len(value) > METRICS:
        raise ValueError
    if not all(re.match(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}\Z", name) for name in value):
        raise ValueError
    return {name: _number(each) for name, each in value.items()}


FIELDS = {
    "fraction": _fraction,
    "step": _whole(0),
    "steps": _whole(1),
    "message": _line,
    "metrics": _metrics,
}
