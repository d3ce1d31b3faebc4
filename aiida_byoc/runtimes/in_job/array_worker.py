"""A process that runs one task of an element after the other, and the element's end of its wires.

    orders    to the worker: a task, a line each, as in `byoc_array/tasks.jsonl`; its end is the worker's
    control   to the worker: `NUMBER SIGNAL`, a line each, for that task and no other; SIGALRM says that one is there
    reports   from the worker: a task's record, a line each; empty if somebody has begun that task already

SIGTERM is Slurm's, or the kernel's when the element has died: it is for whatever runs.
"""

import os
import sys

from .array_task import Runner
from .light import dumps, loads, signal, suppress
from .spawn import adopt_orphans, leash

_HEARD = (signal.SIGTERM, signal.SIGALRM)
_MOST = 1 << 16


class Worker:
    """A worker as the element has it. `task` is what it was ordered and has not reported."""

    def __init__(self, specification, element, others):
        self.task = None
        self._said = b""
        orders, self._orders = os.pipe()
        control, self._control = os.pipe()
        self.reports, reports = os.pipe()
        put_on, parent = leash(signal.SIGTERM), os.getpid()
        # Until it has handlers of its own, a signal would be the element's business in the worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                put_on()
                for each in (self, *others):
                    each.close()
                _work(Runner(specification, element, parent), orders, control, reports)
            except BaseException as error:
                # Whatever it is, this process must not go on as the element.
                print("byoc: {!r}".format(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for each in (orders, control, reports):
            os.close(each)

    def order(self):
        """Have it run its task; a worker that has died meanwhile says so by the end of its reports."""
        block = dumps(self.task).encode() + b"\n"
        with suppress(BrokenPipeError):
            while block:
                block = block[os.write(self._orders, block) :]

    def tell(self, number, received):
        """Send a task of its a signal."""
        with suppress(BrokenPipeError, ProcessLookupError):
            os.write(self._control, b"%d %d\n" % (number, received))
            os.kill(self.pid, signal.SIGALRM)

    def report(self):
        """What it reports of its task, a line; `None`: it has not said all of it.

        Raises:
            EOFError: it has died.
        """
        block = os.read(self.reports, _MOST)
        if not block:
            raise EOFError
        self._said += block
        if not block.endswith(b"\n"):
            return None
        said, self._said = self._said, b""
        return said.decode()

    def close(self):
        """Let it end when it has done what it was ordered."""
        for each in (self._orders, self._control, self.reports):
            os.close(each)


def _work(runner, orders, control, reports):
    os.set_blocking(control, False)

    def listen(*_):
        with suppress(BlockingIOError):
            for line in os.read(control, _MOST).splitlines():
                number, received = line.split()
                runner.hear(int(received), int(number))

    signal.signal(signal.SIGALRM, listen)
    signal.signal(signal.SIGTERM, lambda received, _: runner.hear(received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    adopt_orphans()
    with os.fdopen(orders, "rb") as lines:
        for line in lines:
            block = (runner.run(loads(line.decode())) or "").encode() + b"\n"
            while block:
                block = block[os.write(reports, block) :]
