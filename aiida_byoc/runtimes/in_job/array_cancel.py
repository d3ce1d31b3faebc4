"""Tasks of an array that are not wanted any more: a file beside them, which the node replaces while the array runs."""

from . import CANCELLED
from .light import loads, os, read


class Cancelled:
    """Their numbers, as the file has them when it is looked at."""

    def __init__(self):
        self._path = os.path.join(os.getcwd(), CANCELLED)
        self._ranges = []
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
        return any(first <= number <= last for first, last in self._ranges)
