"""Start the runtime's process, and adopt those that it leaves: what `subprocess` does not, or takes that long for."""

import sys

from . import NONE_LEFT
from .light import once, os, prctl, signal, suppress

_OURS = (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that we may have handlers for."""
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
"""prctl(2)"""
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python has ways of its own with."""


def start(command, env, streams, descriptors, held_by=None):
    """Start it with no input, with that output, and with these descriptors and no others; return its pid.

    Args:
        held_by: the signal that it gets when this process dies; `None`: it sees to that itself, which saves the copy of
            this process (1.5 ms) that would have to ask for it.

    Raises:
        OSError: it cannot be started.
    """
    _keep_the_others()
    for each in descriptors:
        os.set_inheritable(each, True)
    if held_by is None and hasattr(os, "posix_spawn"):  # Python 3.8
        return os.posix_spawn(
            command[0],
            command,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, streams.out, 1),
                (os.POSIX_SPAWN_DUP2, streams.err, 2),
            ],
            setsigdef=(*_OURS, *_PYTHONS),
        )
    put_on = leash(signal.SIGKILL if held_by is None else held_by)
    hearing, telling = os.pipe()
    # In the copy no handler of ours may run.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    pid = os.fork()
    if pid == 0:
        try:
            put_on()
            _arrange(streams, before)
            os.execve(command[0], command, env)
        except OSError as error:
            os.write(telling, str(error.errno).encode())
        except BaseException as error:  # whatever it is, this process must not go on as ours
            print("byoc: {!r}".format(error), file=sys.stderr)
        finally:
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(telling)
    with os.fdopen(hearing, "rb") as said:
        number = int(said.read() or 0)
    if number:
        os.waitpid(pid, 0)
        raise OSError(number, os.strerror(number), command[0])
    return pid


def _arrange(streams, mask):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(streams.out, 1)
    os.dup2(streams.err, 2)
    for number in (*_OURS, *_PYTHONS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@once
def _keep_the_others():
    """What we got from whoever started us is not for the container; what we open is not either, unless we say so."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the one that read the directory
                continue


def leash(number):
    """Return what a child calls before it becomes the runtime, to get that signal when this process dies (prctl(2))."""
    control, parent = prctl(), os.getpid()

    def put_on():
        control(_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGKILL)

    return put_on


def adopt_orphans():
    """Become the parent of what the runtime leaves behind (prctl(2)); return whether that could be.

    bubblewrap does not wait for its container's first process: without this, its resource usage is lost, and it could
    still write while the outputs are measured.
    """
    with suppress(ImportError, OSError, AttributeError):  # without that of the C library
        return prctl()(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    return False


def wait_for_orphans():
    """Wait for all of them; return what each has used, as getrusage(2) has it."""
    used = []
    with suppress(ChildProcessError):
        while True:
            used.append(os.wait3(0)[2])
    return used


def note_none_left(last):
    """Note for the Epilog that this Slurm job has no process but this one, which has adopted all that others left.

    Without the note the Epilog looks through all processes of the machine; where it cannot be made, that is all.

    Args:
        last: a file that the job has written, which gets the note's name as well: to make one takes longer.
    """
    with suppress(OSError, KeyError):
        if not _has_children():
            os.makedirs(NONE_LEFT, exist_ok=True)
            os.link(last, os.path.join(NONE_LEFT, os.environ["SLURM_JOB_ID"]))


def _has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
