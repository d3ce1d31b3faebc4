"""One task of an array: one container, in a directory and a process of its own, with a completion record of its own.

byoc_array/tasks/THOUSANDS/NUMBER/
    work/, inputs/, outputs/, in_place/   as in the directory of a job with one container
    stdout, stderr                        what its program wrote
    record.json                           written last, by atomic rename
"""

import json
import os
import signal
import sys
import time

from . import ARRAY, WORK
from .container import Container
from .inputs import place_inputs
from .limits import leash
from .orphans import adopt_orphans
from .outputs import keep_outputs
from .record import write_record

SUCCEEDED, FAILED, INTERRUPTED = "succeeded", "failed", "interrupted"
CANCELLED = "cancelled"
TASK_RECORD = "record.json"
_HEARD = (signal.SIGTERM, signal.SIGALRM)
_MOST_SAID = 300


def directory_of(number):
    """Where a task has its files, below the directory of the attempt."""
    return os.path.join(ARRAY, "tasks", str(number // 1000), str(number))


def begin(specification, task, element):
    """Start a task in a process of its own; return its pid, or `None` if somebody has begun it already."""
    place = directory_of(task[0])
    os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        os.mkdir(place)
    except FileExistsError:
        return None
    put_on = leash(signal.SIGTERM)
    # Until it has handlers of its own, a signal would be the element's business in the task's process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    try:
        put_on()
        _run(specification, task, element, place)
    except BaseException as error:  # whatever it is, this process must not go on as the element
        print("byoc: task {}: {!r}".format(task[0], error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


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


def _run(specification, task, element, place):
    number, task_id, values = task
    stopped = []
    containers = []  # type: list[Container]

    def stop(received, _):
        stopped.append(received)
        for container in containers:
            container.signal(received)

    def kill(_, __):
        for container in containers:
            container.signal(signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)  # a cancelled task's time to end in order is over
    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    adopt_orphans()
    os.chdir(place)
    os.mkdir(WORK)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    array, own = specification["array"], dict(specification)
    own["argv"] = [render(each, values) for each in array["argv"]]
    own["env"] = dict(specification["env"])
    own["env"].update({name: render(each, values) for name, each in array["env"].items()})
    own["env"].update({"BYOC_TASK_ID": task_id, "BYOC_TASK_NUMBER": str(number)})
    started = time.time()
    wrong = place_inputs(own["inputs"])
    code, message, kept, used = None, wrong, {}, (0.0, 0.0)
    if not wrong:
        container = Container(own, task=number)
        containers.append(container)
        for received in list(stopped):
            container.signal(received)
        code, message, _ = container.run()
        used = container.used()
        kept = keep_outputs(own["outputs"], own["caps"], [each["name"] for each in own["inputs"]])
    fault = _fault(kept)
    state = SUCCEEDED if code == 0 and not fault else FAILED
    if stopped:
        state = INTERRUPTED
    result = _result(task, element, started, time.time(), state)
    result.update(
        attempt=specification["attempt"],
        exit_code=code,
        message=_line(message or fault or (_last_words() if state != SUCCEEDED else None)),
        cpu_seconds=round(used[0], 3),
        peak_rss_mib=round(used[1], 1),
        outputs=kept.get("outputs", []),
    )
    write_record(result, TASK_RECORD, durable=False)  # the element sees to that, for many at a time


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
    with open("stderr", "rb") as file:
        file.seek(max(0, os.path.getsize("stderr") - 4096))
        lines = file.read().decode("utf-8", "replace").split("\n")
    said = [" ".join(line.split()) for line in lines]
    return next((line for line in reversed(said) if line), None)


def _line(text):
    """Text as a record may have it: printable, and not too long."""
    return text and "".join(each if each.isprintable() else " " for each in text[:_MOST_SAID])


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
