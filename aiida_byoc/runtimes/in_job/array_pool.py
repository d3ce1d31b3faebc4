"""Who runs the tasks of an element that has several: a few processes that live on."""

import os
import select

from .array_worker import Worker
from .light import signal, suppress


class Pool:
    """Workers, made when they are needed; one that dies costs its task.

    Signals may interrupt any of this, and tell tasks something: a task is told from before it is ordered.
    """

    def __init__(self, specification, element, most):
        self._specification, self._element, self._most = specification, element, most
        self._workers = {}  # type: dict[int, Worker]
        self._reports = select.poll()

    @property
    def running(self):
        """Numbers of the tasks that are under way."""
        tasks = (each.task for each in list(self._workers.values()))
        return [task[0] for task in tasks if task is not None]

    @property
    def is_full(self):
        return len(self.running) >= self._most

    def begin(self, task, unless):
        """Have a task run, `unless` it is not to be any more."""
        worker = next((each for each in self._workers.values() if each.task is None), None)
        if worker is None:
            worker = Worker(self._specification, self._element, list(self._workers.values()))
            self._workers[worker.reports] = worker
            self._reports.register(worker.reports, select.POLLIN)
        worker.task = task
        if unless():
            worker.task = None
        else:
            worker.order()

    def tell(self, number, received):
        """Send a task a signal."""
        for worker in list(self._workers.values()):
            if worker.task is not None and worker.task[0] == number:
                worker.tell(number, received)

    def ended(self):
        """Wait until some have ended; return of each the task, what was reported, and how its worker died if it did."""
        found = []
        for reports, _ in self._reports.poll():
            worker = self._workers[reports]
            try:
                text, status = worker.report(), None
            except EOFError:
                text, status = None, self._bury(worker)
            else:
                if text is None:
                    continue
            task, worker.task = worker.task, None
            if task is not None:
                found.append((task, text and text.strip(), status))
        return found

    def close(self):
        """Let the workers end."""
        for worker in self._workers.values():
            worker.close()
        for worker in self._workers.values():
            os.waitpid(worker.pid, 0)

    def _bury(self, dead):
        """Forget a worker that has died; return how.

        What it had started, and what was not held to its life yet, is this process's now.
        """
        self._reports.unregister(dead.reports)
        del self._workers[dead.reports]
        dead.close()
        status = os.waitpid(dead.pid, 0)[1]
        living = {each.pid for each in self._workers.values()}
        for pid in _children() - living:
            if self._specification["runtime"].get("leashed"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return status


def _children():
    with open("/proc/self/task/{}/children".format(os.getpid()), encoding="ascii") as file:
        return set(map(int, file.read().split()))
