"""Taking up what an earlier attempt of the job left: copies, so that the earlier directory stays as it is.

The program wrote those files, and somebody stopped it: nothing in them is trusted. Links are made anew as links and
never followed; devices, pipes and sockets are left; no name is looked up twice, since a program that a failed node
still runs may change the tree meanwhile.
"""

import contextlib
import os
import stat

from . import BEGUN, IN_PLACE, OUTPUTS, PROGRESS, WORK

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MOST_LEVELS = 64
_CHUNK = 1 << 20


def carry_over(directories):
    """Bring what the newest attempt left whose program was begun into `work/`; say what was brought, or `None`.

    An attempt that ended before its program was begun has no more than part of what it wanted to take up itself.
    What the earlier one left as an output belongs to its files: they were moved out of `work/` at its end.
    """
    for directory in directories:
        if os.path.exists(os.path.join(directory, BEGUN)):
            found = {"files": 0, "bytes": 0, "left_out": 0}
            for part in (WORK, OUTPUTS, IN_PLACE):
                with contextlib.suppress(FileNotFoundError):
                    _merge(os.path.join(directory, part), WORK, found)
            return found
    return None


def _merge(source, target, found):
    source = os.open(source, _DIRECTORY)
    try:
        target = os.open(target, _DIRECTORY)
        try:
            _merge_directory(source, target, found, 0)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _merge_directory(source, target, found, level):
    for name in os.listdir(source):
        if level == 0 and name == PROGRESS.partition("/")[0]:
            continue  # what the earlier attempt said of itself is not this one's
        try:
            mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and level < _MOST_LEVELS:
                _bring_directory(name, source, target, found, level)
            elif stat.S_ISLNK(mode):
                link = os.readlink(name, dir_fd=source)
                _make_room(name, target)
                os.symlink(link, name, dir_fd=target)
            elif stat.S_ISREG(mode):
                found["bytes"] += _bring_file(name, source, target)
                found["files"] += 1
            else:
                found["left_out"] += 1
        except (FileNotFoundError, PermissionError):
            found["left_out"] += 1


def _bring_directory(name, source, target, found, level):
    inner_source = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=target)
                os.mkdir(name, 0o700, dir_fd=target)
        inner_target = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            _merge_directory(inner_source, inner_target, found, level + 1)
            os.chmod(inner_target, stat.S_IMODE(os.fstat(inner_source).st_mode) | 0o700)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)


def _bring_file(name, source, target):
    """Copy a regular file, holes as holes; return its size."""
    # Without O_NONBLOCK the opening of a pipe that took the file's place would never end.
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    try:
        status = os.fstat(reading)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(name)
        _make_room(name, target)
        writing = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target
        )
        try:
            for start, end in _data(reading, status.st_size):
                _copy(reading, writing, start, end)
            os.ftruncate(writing, status.st_size)
            os.chmod(writing, stat.S_IMODE(status.st_mode) & 0o777 | 0o600)
            os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writing)
        return status.st_size
    finally:
        os.close(reading)


def _data(file, size):
    """The parts of a file that are no holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != 6:  # ENXIO: nothing but a hole follows
                raise
            return
        yield start, end


def _copy(reading, writing, start, end):
    os.lseek(writing, start, os.SEEK_SET)
    while start < end:
        block = os.pread(reading, min(_CHUNK, end - start), start)
        if not block:
            return
        start += len(block)
        while block:
            block = block[os.write(writing, block) :]


def _make_room(name, directory):
    """Remove what was staged there: the earlier attempt had it too, and may have changed it."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                for each in os.listdir(inner):
                    _make_room(each, inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
