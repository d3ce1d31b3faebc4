"""Run inside a container: try to get out of it in every way that comes to mind, and tell what came of it.

It reads `facts.json` about the machine and prints one JSON object: the name of each attempt, and `null` if it was in
vain, else what it got. Standard library only.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_NET, NEW_NS = 0x10000000, 0x40000000, 0x00020000
READ_ONLY_ANYWAY = ("/proc/pressure/",)
"""Whoever writes there asks to be told of pressure, and changes nothing."""


def call(name, *words):
    """A system call by way of libc; true if it succeeded."""
    return getattr(LIBC, name)(*words) == 0


def opens(path, flags):
    """Whether a path can be opened; never truncates."""
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True


def writes_to_the_image(facts):
    found = []
    for place in ("/", "/etc", "/usr/bin", "/run", "/var", "/dev", "/root", "/sys"):
        path = os.path.join(place, "escape")
        if opens(path, os.O_WRONLY | os.O_CREAT):
            found.append(path)
    found += [path for path in ("/etc/passwd", "/usr/bin/busybox") if opens(path, os.O_WRONLY)]
    return found


def writes_settings_of_the_machine(facts):
    found = []
    for top in ("/proc", "/sys"):
        for place, directories, files in os.walk(top):
            if place == "/proc":
                directories[:] = [
                    name for name in directories if name in {"sys", "bus", "fs", "irq"}
                ]
            for name in files:
                path = os.path.join(place, name)
                if not path.startswith(READ_ONLY_ANYWAY) and opens(path, os.O_WRONLY):
                    found.append(path)
    return [path for path in found if stat.S_ISREG(os.stat(path).st_mode)][:5]


def reads_the_machines_files(facts):
    paths = [facts["secret"], "/etc/shadow", "/proc/1/root" + facts["secret"]]
    return [path for path in paths if opens(path, os.O_RDONLY)]


def writes_the_machines_files(facts):
    path = os.path.join(facts["directory"], "escape")
    return opens(path, os.O_WRONLY | os.O_CREAT)


def sees_processes_of_the_machine(facts):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            for name in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{entry}/{name}", "rb") as file:
                        content = file.read()
                except OSError:
                    continue
                if facts["word"].encode() in content or b"SLURM_" in content:
                    found.append(entry + "/" + name)
    return found


def reaches_processes_of_the_machine(facts):
    found = []
    try:
        os.kill(facts["pid"], 0)
        found.append("kill")
    except OSError:
        pass
    if call("ptrace", 16, facts["pid"], 0, 0):  # PTRACE_ATTACH
        found.append("ptrace")
    return found


def holds_descriptors_it_was_not_given(facts):
    names = {
        name: os.path.realpath("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
    }
    return [path for name, path in names.items() if int(name) > 2 and not path.startswith("/proc")]


def connects(facts):
    found = []
    for host in ("127.0.0.1", facts["address"]):
        with socket.socket() as client:
            client.settimeout(2)
            if client.connect_ex((host, facts["port"])) == 0:
                found.append(host)
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex("\0" + facts["abstract"]) == 0:
            found.append("abstract socket")
    return found + [name for _, name in socket.if_nameindex() if name != "lo"]


def opens_raw_sockets(facts):
    found = []
    for family, kind, protocol in (
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        (socket.AF_PACKET, socket.SOCK_RAW, 3),
    ):
        try:
            socket.socket(family, kind, protocol).close()
            found.append(str(family))
        except OSError:
            pass
    return found


def mounts(facts):
    os.makedirs("/work/mounted", exist_ok=True)
    found = []
    if call("mount", b"tmpfs", b"/work/mounted", b"tmpfs", 0, b""):
        found.append("tmpfs")
    if call("mount", b"none", b"/", b"", 32, b""):  # MS_REMOUNT, not read-only
        found.append("remount")
    if call("umount2", b"/proc/sys", 2):
        found.append("umount")
    if call("chroot", b"/work"):
        found.append("chroot")
    return found


def becomes_somebody_else(facts):
    found = []
    for uid in {0, 1, 1000} - {os.getuid()}:
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(uid, uid, uid)
            except OSError:
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            found.append(uid)
    return found


def has_privileges(facts):
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    found = [name for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status[name], 16)]
    return found + ([] if status["NoNewPrivs"].strip() == "1" else ["new privileges"])


def makes_devices(facts):
    found = []
    for place in ("/work", "/tmp"):
        for kind, number in (
            (stat.S_IFCHR, (1, 1)),
            (stat.S_IFBLK, (8, 0)),
            (stat.S_IFBLK, (254, 0)),
        ):
            path = os.path.join(place, "device")
            try:
                os.mknod(path, kind | 0o600, os.makedev(*number))
                found.append(path)
                os.unlink(path)
            except OSError:
                pass
    return found


def opens_devices(facts):
    usual = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
    found = []
    for place, _, files in os.walk("/dev"):
        for name in files:
            path = os.path.join(place, name)
            kind = os.lstat(path).st_mode
            if (
                (stat.S_ISBLK(kind) or stat.S_ISCHR(kind))
                and name not in usual
                and place != "/dev/pts"
            ):
                found.append(path)
    return found + [
        p for p in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda") if opens(p, os.O_RDONLY)
    ]


def makes_namespaces(facts):
    found = []
    for name, flag in (("user", NEW_USER), ("net", NEW_NET), ("mount", NEW_NS)):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if call("unshare", flag) else 1)
        if os.waitpid(pid, 0)[1] == 0:
            found.append(name)
    return found


def joins_namespaces(facts):
    found = []
    for name in ("mnt", "net", "pid", "user"):
        try:
            descriptor = os.open("/proc/1/ns/" + name, os.O_RDONLY)
        except OSError:
            continue
        if call("setns", descriptor, 0):
            found.append(name)
    return found


def changes_the_machine(facts):
    found = []
    try:
        socket.sethostname("escaped")
        found.append("hostname")
    except OSError:
        pass
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
        found.append("clock")
    except OSError:
        pass
    if call("swapoff", b"/nonexistent") or ctypes.get_errno() != 1:
        found.append("swap")
    return found


def dumps_core(facts):
    return resource.getrlimit(resource.RLIMIT_CORE) != (0, 0)


def fills_memory_by_files(facts):
    found = []
    for place in ("/tmp", "/dev/shm"):
        total = os.statvfs(place)
        if total.f_blocks * total.f_frsize > facts["tmp_bytes"]:
            found.append(place)
    return found


def starts_processes_without_end(facts):
    children = []
    try:
        while len(children) <= facts["processes"]:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError:
        return None
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
    return len(children)


ATTEMPTS = [
    writes_to_the_image,
    writes_settings_of_the_machine,
    reads_the_machines_files,
    writes_the_machines_files,
    sees_processes_of_the_machine,
    reaches_processes_of_the_machine,
    holds_descriptors_it_was_not_given,
    connects,
    opens_raw_sockets,
    mounts,
    becomes_somebody_else,
    has_privileges,
    makes_devices,
    opens_devices,
    makes_namespaces,
    joins_namespaces,
    changes_the_machine,
    dumps_core,
    fills_memory_by_files,
    starts_processes_without_end,
]


def main():
    with open("facts.json") as file:
        facts = json.load(file)
    report = {}
    for attempt in ATTEMPTS:
        try:
            report[attempt.__name__] = attempt(facts) or None
        except Exception as error:
            report[attempt.__name__] = f"broke off: {error!r}"
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
