"""Tasks of an array that are not wanted any more: a file beside them, which the node replaces while the array runs."""

from . import CANCELLED
from .light import loads, os, read


class Cancelled:
    """Their numbers, as the file has them when it is looked at."""

    def __init__(self):
        self._path = os.path.join(os.getcwd(), CANCELLED)
        self._ranges = []  # in order, with gaps between
        self._seen = None

    def look(self):
        """Read the file if it is another one than before; one that cannot be read is looked at again."""
        try:
            now = os.stat(self._path)
            if (now.st_ino, now.st_mtime) == self._seen:
                return
            self._ranges = loads(read(self._path))
            self._seen = now.st_ino, now.st_mtime
        except (OSError, ValueError):
            return

    def __contains__(self, number):
        ranges = self._ranges  # a look may come between, from a signal
        if not ranges:
            return False
        from bisect import bisect_left  # mostly nobody cancels anything

        at = bisect_left(ranges, [number + 1])
        return at > 0 and number <= ranges[at - 1][1]
