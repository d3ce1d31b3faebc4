"""Who runs the only task of an element."""

import sys

from .array_task import Runner


class Alone:
    """As a pool (array_pool.py), in the element's own process, where the end of the task is waited for."""

    def __init__(self, specification, element):
        self._runner = Runner(specification, element)
        self._task = None

    @property
    def running(self):
        return [] if self._task is None else [self._task[0]]

    is_full = False

    def begin(self, task, unless):
        self._task = task
        if unless():
            self._task = None

    def tell(self, number, received):
        self._runner.hear(received, number)

    def ended(self):
        task, text, status = self._task, None, None
        try:
            text = self._runner.run(task) or ""
        except Exception as error:  # as if it had broken off a process of its own
            print("byoc: {!r}".format(error), file=sys.stderr)
            status = 1 << 8
        self._task = None
        return [(task, text, status)]

    def close(self):
        pass
