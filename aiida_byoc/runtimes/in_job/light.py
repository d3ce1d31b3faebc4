"""Parts of the standard library as far as they are needed here, by what they themselves stand on.

`json`, `os`, `signal`, `contextlib`, `functools`, `shutil`, `ctypes` and what they import took half of the time of an
array's element (CPython 3.11). Where a module of CPython's own does the work, written in C, it is asked itself; where
that is missing, or is another than we know, the library's own takes its place.
"""

import posix
import sys

__all__ = ["dumps", "loads", "once", "os", "prctl", "read", "signal", "suppress", "which", "write"]

try:
    import _signal as signal  # type: ignore[import-not-found]  # the same functions; its numbers have no names
except ImportError:
    import signal


_BLOCK = 1 << 16


class _Path:
    """`os.path`: a few of its functions; the others it is asked for itself."""

    def __getattr__(self, name):
        import os.path

        return getattr(os.path, name)

    @staticmethod
    def join(path, *others):
        for each in others:
            between = "" if not path or path.endswith("/") else "/"
            path = each if each.startswith("/") else path + between + each
        return path

    @staticmethod
    def dirname(path):
        head = path[: path.rfind("/") + 1]
        return head.rstrip("/") or head

    @staticmethod
    def exists(path):
        try:
            posix.stat(path)
        except (OSError, ValueError):
            return False
        return True

    @staticmethod
    def isdir(path):
        try:
            return posix.stat(path).st_mode & 0o170000 == 0o040000
        except (OSError, ValueError):
            return False


class _Os:
    """`os`: what it takes from `posix`, and what is beside that here; for all else it is asked itself.

    Its import takes as long as that of all modules of ours, for its environment is one of the abstract collections.
    """

    curdir, pardir, pathsep, defpath, devnull = ".", "..", ":", "/bin:/usr/bin", "/dev/null"
    path = _Path()

    def __init__(self):
        self.__dict__.update(vars(posix))
        coding = sys.getfilesystemencoding(), "surrogateescape"
        given = posix.environ.items()
        self.environ = {name.decode(*coding): value.decode(*coding) for name, value in given}

    def __getattr__(self, name):
        import os

        return getattr(os, name)

    def makedirs(self, path, mode=0o777, exist_ok=False):
        try:
            posix.mkdir(path, mode)
        except OSError as error:
            if not (exist_ok and isinstance(error, FileExistsError) and self.path.isdir(path)):
                import os

                os.makedirs(path, mode, exist_ok)


def _os():
    return sys.modules.get("os") or _Os()  # whoever has it, has paid for it


os = _os()


class _Ways:
    """How JSON is read: as by `json.loads` when it is asked for nothing in particular."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float


def _refuse(value):
    raise TypeError("{!r} is nothing that JSON knows".format(value))


def loads(text):
    """Read JSON; what is none is a `ValueError`."""
    text = text.strip(" \t\n\r")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    if end != len(text):
        raise ValueError("this is not JSON")
    return value


def dumps(value):
    """Write JSON, as `json.dumps` does; there must be no circles in it."""
    return "".join(_encode(value, 0))


try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Ways)  # type: ignore[arg-type]
    _encode = make_encoder(
        None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True
    )
except (ImportError, TypeError, AttributeError):
    from json import dumps, loads  # type: ignore[assignment]


def read(path):
    """The text of a file; `open` makes three objects for it first."""
    parts = []  # type: list[bytes]
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while not parts or parts[-1]:
            parts.append(os.read(file, _BLOCK))
    finally:
        os.close(file)
    return b"".join(parts).decode()


def write(path, content, durable=False):
    """Write text or bytes to a file so that it is either whole or absent, if `durable` also after a power cut."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    left = content if isinstance(content, bytes) else content.encode()
    file = os.open(path + ".tmp", flags, 0o666)
    try:
        while left:
            left = left[os.write(file, left) :]
        if durable:
            os.fsync(file)
    finally:
        os.close(file)
    os.rename(path + ".tmp", path)


class suppress:  # noqa: N801  (it stands in for the library's)
    """Leave a block in silence when it raises one of these."""

    def __init__(self, *kinds):
        self._kinds = kinds

    def __enter__(self):
        return None

    def __exit__(self, kind, *_):
        return kind is not None and issubclass(kind, self._kinds)


def once(function):
    """Remember what a function has returned, by its positional arguments."""
    known = {}

    def remembered(*words):
        if words not in known:
            known[words] = function(*words)
        return known[words]

    return remembered


def which(program):
    """Where a program is on the machine's PATH; `None` if it is not."""
    path, places = os.environ.get("PATH", os.defpath), [program]
    if not os.path.dirname(program):
        places = [os.path.join(each, program) for each in path.split(os.pathsep) if path]
    for place in places:
        if os.access(place, os.X_OK) and not os.path.isdir(place):
            return place
    return None


@once
def prctl():
    """Return prctl(2) of the C library; to look it up takes longer than most calls of it."""
    try:
        from _ctypes import call_function, dlopen, dlsym

        address = dlsym(dlopen(None, os.RTLD_NOW), "prctl")  # type: ignore[arg-type]
        return lambda *words: call_function(address, words)
    except (ImportError, TypeError):
        from ctypes import CDLL

        return CDLL(None).prctl
