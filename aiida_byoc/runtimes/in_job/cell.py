"""The first process of a container whose runtime has none: shuts the machine out, starts the runtime, tells its end.

    unshare --user --map-root-user --mount --pid … python3 -m byoc_in_job.cell
        STATUS_FD GATE_FD DIRECTORY TMP_BYTES HOSTNAME GRANTED INPUTS RUNTIME [WORD…]

It tells on STATUS_FD what bubblewrap tells, as JSON, a line each: `child-pid` (its own, as the machine sees it) before
it waits for a byte on GATE_FD, and `exit-code` at the end, if the program was started.
"""

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import socket
import struct
import sys

from .placeholders import GPU_DEVICES

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32
_BIND, _MOVE, _RECURSIVE, _PRIVATE = 4096, 8192, 16384, 1 << 18
_CLOSED = _NOSUID | _NODEV | _NOEXEC
_NOATIME, _NODIRATIME, _RELATIME = 1024, 2048, 1 << 21
"""mount(2)"""
_ST_RELATIME = 4096
"""statvfs(3); what else it tells of a mount has the numbers of mount(2)"""
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
"""netdevice(7)"""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_SETTINGS = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
"""What of `/proc` changes the machine; some of it root may write, whatever namespace it is in."""
_NAMESPACES_OF_RUNTIME = 2
"""`ch-run` makes two user namespaces, one in the other; the program shall make none."""


def protect(path):
    """Mount what is at a path over itself, for reading alone, with all that is mounted in it."""
    path = os.path.realpath(path)
    _mount(path, path, "", _BIND | _RECURSIVE)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = {_unescaped(line.split()[4]) for line in file}
    for point in sorted(each for each in points if (each + "/").startswith(path + "/")):
        told = os.statvfs(point).f_flag
        kept = told & (_CLOSED | _NOATIME | _NODIRATIME) | (told & _ST_RELATIME and _RELATIME)
        _mount("none", point, "", _REMOUNT | _BIND | _RDONLY | kept)


def _unescaped(text):
    """A path of `/proc/self/mountinfo`, which writes blanks and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def shut_out(place, tmp_bytes, granted, inputs):
    """Make `/dev`, `/proc` and `/sys` the container's own, inputs read-only, and an empty `PLACE/tmp`."""
    gpus = "gpus" in granted
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    for each in inputs:
        protect(each)
    os.makedirs(place, exist_ok=True)
    _mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, "mode=0755,size={}".format(tmp_bytes))
    os.mkdir(place + "/tmp")
    os.chmod(place + "/tmp", 0o1777)
    shared = [each[len("shm=") :] for each in granted if each.startswith("shm=")]
    _make_devices(place + "/dev", gpus)
    if shared:
        _mount(shared[0], place + "/dev/shm", "", _BIND)
        _mount("none", place + "/dev/shm", "", _REMOUNT | _BIND | _CLOSED)
    else:
        shm = "mode=1777,size={}".format(tmp_bytes)
        _mount("tmpfs", place + "/dev/shm", "tmpfs", _CLOSED, shm)
    _mount("none", place + "/dev", "", _REMOUNT | _BIND | _RDONLY | _NOSUID | _NOEXEC)
    _mount(place + "/dev", "/dev", "", _MOVE)
    _mount("proc", "/proc", "proc", _CLOSED)
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write(str(_NAMESPACES_OF_RUNTIME))
    for name in _SETTINGS:
        path = "/proc/" + name
        if os.path.exists(path):
            _mount(path, path, "", _BIND)
            _mount("none", path, "", _REMOUNT | _BIND | _RDONLY | _CLOSED)
    if gpus:
        _mount("/sys", "/sys", "", _BIND)
        _mount("none", "/sys", "", _REMOUNT | _BIND | _RDONLY | _CLOSED)
    else:
        _mount("tmpfs", "/sys", "tmpfs", _RDONLY | _CLOSED, "mode=0555,size=4k")
    if "network" not in granted:
        _start_loopback()


def _make_devices(place, gpus):
    os.mkdir(place)
    _mount("tmpfs", place, "tmpfs", _NOSUID | _NOEXEC, "mode=0755,size=64k")
    devices = list(_DEVICES)
    if gpus:
        devices += [path for pattern in GPU_DEVICES for path in glob.glob(pattern)]
    for path in devices:
        if not os.path.isdir(path):
            target = place + path[len("/dev") :]
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "w", encoding="ascii").close()
            _mount(path, target, "", _BIND)
    for name, target in _LINKS.items():
        os.symlink(target, os.path.join(place, name))
    os.mkdir(place + "/shm")
    os.mkdir(place + "/pts")  # ch-run wants it


def _mount(source, target, kind, flags, data=""):
    words = (source.encode(), os.fsencode(target), kind.encode(), flags, data.encode())
    if ctypes.CDLL(None, use_errno=True).mount(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, "cannot mount {}: {}".format(target, os.strerror(number)))


def _start_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(control, _GET_FLAGS, asked)[:18])[1]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh", b"lo", flags | _UP))


def start(command, status_fd, disguise):
    """Start the runtime under a name of our own: its process is called so until it becomes the program."""
    os.symlink(shutil.which(command[0]) or command[0], disguise)
    child = os.fork()
    if child != 0:
        return child
    try:
        os.close(status_fd)  # the program shall not tell how it ended
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # Python's own ways
            signal.signal(number, signal.SIG_DFL)
        os.execv(disguise, command)
    except OSError as error:
        print("{}: {}".format(command[0], error.strerror), file=sys.stderr)
    finally:
        os._exit(1)


def reap(child):
    """Wait for the child, and for whatever else ends meanwhile; return its exit status, and what it was called last."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid  # type: ignore[union-attr]
        if ended == child:
            break
        os.waitpid(ended, 0)
    with open("/proc/{}/comm".format(child), encoding="utf-8", errors="replace") as file:
        name = file.read().rstrip("\n")
    waited = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(waited) if os.WIFEXITED(waited) else 128 + os.WTERMSIG(waited), name


def main():
    status_fd, gate_fd, place, tmp_bytes, hostname, granted, inputs, *command = sys.argv[1:]
    status, gate = int(status_fd), int(gate_fd)
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        pid = int(file.read().split()[0])  # this `/proc` is the machine's still
    try:
        shut_out(
            place, int(tmp_bytes), granted.split(","), [each for each in inputs.split(",") if each]
        )
        socket.sethostname(hostname)
    except OSError as error:
        sys.exit("byoc: " + str(error))
    _tell(status, {"child-pid": pid})
    if not os.read(gate, 1):
        return 1  # whoever wanted the container is gone
    os.close(gate)
    name = "byoc-" + os.urandom(4).hex()  # the program cannot know it, so it cannot pretend
    child = start(command, status, os.path.join(place, name))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code, called = reap(child)
    if called != name:
        _tell(status, {"exit-code": code})
    return code


def _tell(status, fact):
    with contextlib.suppress(OSError):
        os.write(status, json.dumps(fact).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
