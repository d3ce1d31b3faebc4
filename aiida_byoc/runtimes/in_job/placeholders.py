"""What is known only on the compute node, by the name under which a runtime's words, files and environment ask."""

import resource
import sys

from . import RUNTIME
from .light import dumps, once, os

STATUS_FD = "{status_fd}"
"""The descriptor on which the runtime tells what really ran."""
GATE_FD = "{gate_fd}"
"""The descriptor on which the runtime waits until the container's limits are set."""
KEY_FD = "{key_fd}"
"""The gate's other end: who has it waits for ever, should this process die before it opens the gate."""
DIRECTORY = "{directory}"
"""The job's directory."""
RUNTIME_DIRECTORY = "{runtime}"
"""A directory in it for the runtime, closed to others."""
ENVIRONMENT = "{environment}"
"""A file with the container's environment."""
ENV_JSON = "{env_json}"
"""The container's environment as a JSON array of NAME=VALUE."""
ENV_NAMES = "{env_names}"
"""The names of its variables, with commas."""
CELL = "{cell}"
"""A directory for `cell.py`."""
PIDFILE = "{pidfile}"
"""A file that holds a pid once the container has started."""
SCRATCH = "{scratch}"
"""A directory on the compute node, the job's own, gone after it."""
LOCAL_SCRATCH = "{local_scratch}"
"""The directory that the container knows as `/scratch`, for a job that asked for one."""
SHARED_MEMORY = "{shared_memory}"
"""The directory in memory that the tasks of a parallel job on this node know as `/dev/shm`."""
SLURM_JOB = "{slurm_job}"
"""The job's name among all clusters: CLUSTER-ID."""
HOST = "{host}"
"""What the container's machine is called: the job's name; in a parallel job below that of the node, NODE.CLUSTER-ID."""
UID = "{uid}"
"""The uid inside: the job user's, or nobody's where that is root."""
GID = "{gid}"
HOST_UID = "{host_uid}"
"""The job user's uid, also root's."""
HOST_GID = "{host_gid}"
PATH = "{path}"
"""The machine's own search path."""
PYTHON = "{python}"
USER = "{user}"
PROCESSES = "{processes}"
"""How many processes the container may have."""
CPUS = "{cpus}"
"""How many processors the job has on this node."""
OCI_CONF = "{oci_conf}"
"""Where Slurm looks for its oci.conf."""
OPEN_FILES = "{open_files}"
"""How many open files a process of the job may have, as SOFT:HARD."""

RESOLVER_FILE = "{resolver_file}"
"""Each of the machine's files that the network's names are found by, as far as the image has a place for it."""
GPU_DEVICE = "{gpu_device}"
"""Each device file of the machine's GPUs; which of them are the job's, Slurm sees to."""
GPU_MOUNTS = "{gpu_mounts}"
"""The same as mounts of an OCI bundle, each after a comma."""
SECCOMP = "{seccomp}"
"""podman's seccomp profile, tightened; not at all where the machine has none."""
AS_ROOT = "{as_root}"
"""Once if the job's user is root, not at all otherwise; the word itself is dropped."""
WITH_SUBORDINATES = "{with_subordinates}"
"""Once if the job's user is not root, and has subordinate ids (subuid(5)); the word itself is dropped."""

SCRATCH_PARENT = "/var/tmp"
"""Not /tmp, which Slurm may make private to the job (job_container/tmpfs), where its Epilog finds nothing any more."""

_NOBODY = 65534
_RESOLVER_FILES = ("/etc/resolv.conf", "/etc/hosts")
GPU_DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/kfd", "/dev/dri/renderD*")


def slurm_job():
    return "{}-{}".format(
        os.environ.get("SLURM_CLUSTER_NAME", "cluster"), os.environ.get("SLURM_JOB_ID", "0")
    )


def scratch():
    return os.path.join(SCRATCH_PARENT, "byoc-" + slurm_job())


class Placeholders:
    """What stands for what in one job. A placeholder has a list of values; most have exactly one.

    Each is looked up when it is asked for: a runtime asks for few of them.
    """

    def __init__(self, specification, task=None):
        own = [] if task is None else [str(task)]
        self.runtime = os.path.join(os.getcwd(), RUNTIME, *own)
        rootfs, processes = specification["rootfs"], specification["processes"]
        self._values = {
            DIRECTORY: lambda: [os.getcwd()],
            RUNTIME_DIRECTORY: lambda: [self.runtime],
            UID: lambda: [str(os.geteuid() or _NOBODY)],
            GID: lambda: [str(os.getegid() or _NOBODY)],
            HOST_UID: lambda: [str(os.geteuid())],
            HOST_GID: lambda: [str(os.getegid())],
            CPUS: lambda: [_first_of("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "1")],
            OCI_CONF: lambda: [_beside_slurm_conf("oci.conf")],
            ENVIRONMENT: lambda: [os.path.join(self.runtime, "environment")],
            CELL: lambda: [os.path.join(self.runtime, "cell")],
            PIDFILE: lambda: [os.path.join(self.runtime, "pid")],
            SCRATCH: lambda: [os.path.join(scratch(), *own)],
            SLURM_JOB: lambda: [slurm_job()],
            HOST: lambda: [".".join(([_node()] if own else []) + [slurm_job()])],
            PATH: lambda: [os.environ.get("PATH", os.defpath)],
            PYTHON: lambda: [sys.executable],
            USER: lambda: [_user()],
            PROCESSES: lambda: [str(_at_most(processes))],
            OPEN_FILES: lambda: ["{}:{}".format(*resource.getrlimit(resource.RLIMIT_NOFILE))],
            AS_ROOT: lambda: [""] if os.geteuid() == 0 else [],
            WITH_SUBORDINATES: lambda: [""] if _has_subordinates() else [],
            RESOLVER_FILE: lambda: _resolver_files(rootfs),
            GPU_DEVICE: lambda: list(_gpu_devices()),
            GPU_MOUNTS: lambda: ["".join(", " + _device_mount(name) for name in _gpu_devices())],
        }

    def name(self, **known):
        """Add what is known only now: a value, none at all, or who makes one."""
        for name, value in known.items():
            self._values["{" + name + "}"] = _maker(value)

    def text(self, text):
        """A text with its placeholders replaced."""
        first, *others = text.split("{")
        parts = [first]
        for each in others:
            name, closed, rest = each.partition("}")
            make = self._values.get("{" + name + closed)
            values = make and make()
            parts += [values[0], rest] if values else ["{", each]
        return "".join(parts)

    def env(self, env):
        """An environment with its placeholders replaced."""
        return {name: self.text(value) for name, value in env.items()}

    def words(self, words):
        """A command line: each group of words once for each value of the placeholder in it."""
        line = []
        for word in words:
            if isinstance(word, str):
                line.append(self.text(word))
                continue
            several = next(name for name in _SEVERAL if any(name in each for each in word))
            for value in self._values[several]():
                filled = (each.replace(several, value) for each in word)
                line.extend(self.text(each) for each in filled if each)
        return line


_SEVERAL = {SECCOMP, AS_ROOT, WITH_SUBORDINATES, RESOLVER_FILE, GPU_DEVICE}


def _maker(value):
    if callable(value):
        return lambda: [value()]
    values = [] if value is None else [str(value)]
    return lambda: values


def _at_most(processes):
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return processes if most < 0 else min(processes, most)


def _first_of(*names):
    """The first variable that is set; else the last word itself."""
    return next((os.environ[name] for name in names if os.environ.get(name)), names[-1])


def _beside_slurm_conf(name):
    return os.path.join(os.path.dirname(_first_of("SLURM_CONF", "/etc/slurm/slurm.conf")), name)


# What the machine has, looked up once: the tasks of an array inherit it.
@once
def _gpu_devices():
    from glob import glob

    found = (name for pattern in GPU_DEVICES for name in sorted(glob(pattern)))
    return [name for name in found if not os.path.isdir(name)]


def _device_mount(name):
    options = ["bind", "nosuid", "noexec"]
    return dumps({"destination": name, "type": "none", "source": name, "options": options})


@once
def _resolver_files(rootfs):
    here = (name for name in _RESOLVER_FILES if os.path.isfile(name))
    return [name for name in here if _is_plain_file(rootfs + name)]


def _is_plain_file(path):
    return os.path.isfile(path) and not os.path.islink(path)


def _node():
    return os.environ.get("SLURMD_NODENAME", "node")


@once
def _user():
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@once
def _has_subordinates():
    if os.geteuid() == 0:
        return False
    names = {_user(), str(os.geteuid())}
    found = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8") as file:
                found.append(any(line.split(":")[0] in names for line in file))
        except OSError:
            found.append(False)
    return all(found)
