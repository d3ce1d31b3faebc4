"""One task of an array: one container, in a directory of its own, with a completion record of its own.

byoc_array/tasks/THOUSANDS/NUMBER/
    work/, inputs/, outputs/, in_place/   as in the directory of a job with one container
    stdout, stderr                        what its program wrote, if it did
    record.json                           written last, by atomic rename
"""

import sys
import time

from . import ARRAY, TASK_RECORD, WORK
from .container import Container
from .light import loads, os, read, signal
from .record import write_record

SUCCEEDED, FAILED, INTERRUPTED = "succeeded", "failed", "interrupted"
CANCELLED = "cancelled"
_LOGS = ("stdout", "stderr")
_MOST_SAID = 300
_WORD_SECONDS = 0.5
"""After a program that SIGTERM ended, so long may the same take to reach this process."""


def directory_of(number):
    """Where a task has its files, below the directory of the attempt."""
    return os.path.join(ARRAY, "tasks", str(number // 1000), str(number))


class Runner:
    """Runs tasks in this process, one after the other; hears what is meant for one of them.

    Signals come by number of the task: one that comes late finds nobody, one that comes early is kept.
    """

    def __init__(self, specification, element, parent=None):
        """`parent`: who orders the tasks, counts the processes, and ends what is left if this process is killed."""
        self._specification, self._element, self._parent = specification, element, parent
        self._here = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY)
        self._number = None  # type: int | None
        self._heard = {}  # type: dict[int, list[int]]
        self._container = None  # type: Container | None

    def run(self, task):
        """Run a task; return the text of its record, or `None` if somebody has begun it already."""
        self._number, place = task[0], directory_of(task[0])
        # SIGTERM has said so: to nobody, if that was earlier.
        if self._parent is not None and os.getppid() != self._parent:
            raise ProcessLookupError("the element has died")
        try:
            os.makedirs(place)
        except FileExistsError:
            return None
        os.chdir(place)
        try:
            return self._run(task)
        finally:
            self._number = self._container = None
            self._heard.pop(task[0], None)
            os.fchdir(self._here)

    def hear(self, received, number=None):
        """Send that task a signal; without a number the one that runs, if any."""
        number = self._number if number is None else number
        if number is None:
            return
        self._heard.setdefault(number, []).append(received)
        container = self._container
        if container is not None and number == self._number:
            container.signal(received)

    def _wait_for_word(self, number):
        """Slurm signals the processes of a job one after the other, and may have begun with the program."""
        until = time.monotonic() + _WORD_SECONDS
        while number not in self._heard and time.monotonic() < until:
            time.sleep(0.01)

    def _run(self, task):
        number, task_id, values = task
        os.mkdir(WORK)
        array, own = self._specification["array"], dict(self._specification)
        own["argv"] = [render(each, values) for each in array["argv"]]
        own["env"] = dict(own["env"])
        own["env"].update({name: render(each, values) for name, each in array["env"].items()})
        own["env"].update({"BYOC_TASK_ID": task_id, "BYOC_TASK_NUMBER": str(number)})
        started = time.time()
        wrong = _place(own["inputs"])
        code, message, kept, used = None, wrong, {}, (0.0, 0.0)
        if not wrong:
            self._container = container = Container(
                own, task=number, watched=self._parent is not None, logs=_LOGS
            )
            for received in list(self._heard.get(number, ())):
                container.signal(received)
            code, message, _ = container.run()
            if code == 128 + signal.SIGTERM:
                self._wait_for_word(number)
            used = container.used()
            kept = _keep(own)
        fault = _fault(kept)
        state = SUCCEEDED if code == 0 and not fault else FAILED
        if number in self._heard:
            state = INTERRUPTED
        result = _result(task, self._element, started, time.time(), state)
        result.update(
            attempt=own["attempt"],
            exit_code=code,
            message=_line(message or fault or (_last_words() if state != SUCCEEDED else None)),
            cpu_seconds=round(used[0], 3),
            peak_rss_mib=round(used[1], 1),
            outputs=kept.get("outputs", []),
        )
        return write_record(result, TASK_RECORD, durable=False)  # the element syncs many at a time


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


def result_of(task):
    """What a task's record says; `None` without one."""
    return _read(os.path.join(directory_of(task[0]), TASK_RECORD))


def earlier_result(earlier, number):
    """What the record of a task says that an earlier attempt brought to its good end; `None` if none did."""
    for attempt in earlier:
        found = _read(os.path.join(attempt, directory_of(number), TASK_RECORD))
        if found is not None and found["state"] == SUCCEEDED:
            return found
    return None


def broken(task, status, element, attempt):
    """The result of a task whose process left no record: it was killed, with its container."""
    ended = time.time()
    result = _result(task, element, ended, ended, INTERRUPTED)
    result["attempt"] = attempt
    result["message"] = "the task's process was killed before it could record anything"
    if status is not None and os.WIFEXITED(status):
        result["message"] = "the task's process broke off"
    return result


def cancelled(task, element, attempt):
    """The result of a task that was cancelled before it began."""
    now = time.time()
    return dict(_result(task, element, now, now, CANCELLED), attempt=attempt)


def render(template, values):
    """Put a task's values into a template: texts, and the numbers of parameters."""
    return "".join(part if isinstance(part, str) else values[part] for part in template)


def _place(inputs):
    if not inputs:
        return None
    from .inputs import place_inputs

    return place_inputs(inputs)


def _keep(specification):
    if not specification["outputs"]:
        return {}
    from .outputs import keep_outputs

    inputs = [each["name"] for each in specification["inputs"]]
    return keep_outputs(specification["outputs"], specification["caps"], inputs)


def _result(task, element, started, ended, state):
    return {
        "number": task[0],
        "id": task[1],
        "state": state,
        "exit_code": None,
        "started_at": started,
        "ended_at": ended,
        "cpu_seconds": None,
        "peak_rss_mib": None,
        "message": None,
        "outputs": [],
        "element": element,
        "node": os.environ.get("SLURMD_NODENAME", ""),
    }


def _fault(kept):
    """What is wrong with the outputs, if anything."""
    reasons = kept.get("reasons") or {}
    for name, reason in reasons.items():
        return "the output {} {}".format(name, reason)
    if kept.get("surplus"):
        return "there are {} output files too many".format(kept["surplus"])
    return None


def _last_words():
    """The last line that the program wrote on stderr."""
    try:
        with open("stderr", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return None
    said = [" ".join(line.split()) for line in lines]
    return next((line for line in reversed(said) if line), None)


def _line(text):
    """Text as a record may have it: printable, and not too long."""
    return text and "".join(each if each.isprintable() else " " for each in text[:_MOST_SAID])


def _read(path):
    try:
        return loads(read(path))
    except (OSError, ValueError):
        return None
