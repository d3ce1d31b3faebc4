"""One element of an array: a Slurm job that runs its share of the tasks, as many at a time as it has processors.

    byoc_fence/                   made by the first element; its file `owner` holds the array's Slurm id
    byoc_array/tasks.jsonl        all tasks, in order, a line each (read)
    byoc_array/starts             where in it the lines of each element begin (read)
    byoc_array/cancelled          tasks that are not wanted any more; may come at any time (read)
    byoc_array/elements/N/        made first: the element's own fence
        results.jsonl             its beginning, each task's result, its end; only ever appended to
        ended                     what `results.jsonl` is called once it is whole: its last line has the same numbers as
                                  `done`, of all tasks; empty where the node has ended an element before it began
        done                      how many of its tasks have succeeded and failed, or were cancelled, so far; there is
                                  none of an element that ends before it is due
    byoc_array/tasks/…/NUMBER/    made first: the task's own fence (array_task.py)
        record.json               the task's completion record; a task that has one, here or in an earlier attempt's
                                  directory, is never run again
    byoc_array/reporter           who holds its lock reports for all elements; what it has to know is its content

A task that has a directory but no record was begun and not ended: nobody else takes it up in this attempt.
"""

import gc
import sys
import time

from . import (
    ARRAY_COUNT,
    ARRAY_STARTS,
    ARRAY_TASKS,
    DONE,
    ELEMENTS,
    ENDED,
    FENCED,
    MOST_NAMED,
    NOT_STARTED,
    REPORTER,
    RESULTS,
    START_WIDTH,
)
from .array_cancel import Cancelled
from .array_fence import owns_the_array
from .array_task import (
    CANCELLED,
    INTERRUPTED,
    Alone,
    broken,
    cancelled,
    earlier_result,
    result_of,
)
from .container import Container
from .image import digest_of, objection
from .light import dumps, loads, os, read, signal, suppress, write
from .limits import ProcessCount, no_core_dumps
from .news import News
from .spawn import adopt_orphans, note_none_left

_OWN_PROCESSES = 16
"""More than there are of ours and of a runtime's beside a task's own."""
_KILLED_AFTER = 30
"""Seconds that a cancelled task has to end in order, as a job has by Slurm's KillWait."""
_LOOK_SECONDS = 1.0


def run_element(specification):
    """Run the tasks of the element that Slurm says this is; return its exit status."""
    number = int(os.environ["SLURM_ARRAY_TASK_ID"])
    if not owns_the_array():
        print("byoc: another copy of this job was here first; nothing was run", file=sys.stderr)
        return FENCED
    here = os.getcwd()
    place = os.path.join(here, ELEMENTS, str(number))
    os.makedirs(ELEMENTS, exist_ok=True)
    try:
        os.mkdir(place)
    except FileExistsError:
        print("byoc: this element has been run already", file=sys.stderr)
        return FENCED
    no_core_dumps()
    adopted = adopt_orphans()
    news = News(os.path.join(here, specification["news"]), specification["job_name"])
    news.say("started")
    element = _Element(specification, number, place, news)
    code = element.run()
    if _all_ended():
        news.say("ended")
    if adopted:
        note_none_left(os.path.join(place, ENDED))
    return code


def _all_ended():
    count = int(read(ARRAY_COUNT))
    # From the last on: that one is missing most often.
    elements = (os.path.join(ELEMENTS, str(number), ENDED) for number in reversed(range(count)))
    return all(os.path.exists(each) for each in elements)


class _Element:
    def __init__(self, specification, number, place, news):
        self._specification, self._number, self._place = specification, number, place
        path = os.path.join(place, RESULTS)
        self._results = open(path, "a", encoding="utf-8")  # noqa: SIM115  (until the program ends)
        self._done = {"succeeded": 0, "failed": 0, CANCELLED: 0}
        self._failed = []  # type: list[str]
        self._news, self._here = news, os.getcwd()
        self._reporter = None
        self._cancelled = Cancelled()
        self._told = {}  # type: dict[int, float]
        self._stopping = False

    def run(self):
        specification = self._specification
        image = digest_of(specification["rootfs"])
        wrong = objection(image, specification["image_digest"]) or self._place_inputs()
        self._append(
            {
                "element": self._number,
                "image_digest": image,
                "scheduler_job_id": os.environ.get("SLURM_ARRAY_JOB_ID"),
                "scheduler_job_name": os.environ.get("SLURM_JOB_NAME"),
                "node": os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
                "started_at": time.time(),
                "message": wrong,
            }
        )
        lines = self._read_lines()
        # A process of its own for a single task would be no help: when it dies, nothing is left to do.
        self._is_alone = len(lines) == 1
        self._pool = self._make_pool()
        signal.signal(signal.SIGTERM, self._stop)
        if not wrong:
            self._run_all(map(loads, lines))
        self._append(dict(self._numbers(), ended_at=time.time(), stopped=self._stopping))
        self._end()
        if wrong:
            return NOT_STARTED
        self._report_at_the_end()
        return 0 if self._done["succeeded"] + self._done[CANCELLED] == len(lines) else 1

    def _read_lines(self):
        """The lines of the element's tasks."""
        with open(ARRAY_STARTS, "rb") as starts, open(ARRAY_TASKS, "rb") as tasks:
            starts.seek(self._number * START_WIDTH)
            start = starts.read(START_WIDTH)
            if not start:
                return []
            tasks.seek(int(start))
            lines = (tasks.readline() for _ in range(self._specification["array"]["pack"]))
            return [line.decode() for line in lines if line]

    def _make_pool(self):
        specification, number = self._specification, self._number
        if self._is_alone:
            return Alone(specification, number)
        from .array_pool import Pool

        return Pool(specification, number, specification["array"]["workers"])

    def _place_inputs(self):
        """Have the inputs checked once for all tasks of the element; each task mounts them from here then."""
        given = self._specification["inputs"]
        if not given:
            return None
        from .inputs import place_for_others

        self._specification["inputs"], wrong = place_for_others(given, self._place)
        return wrong

    def _run_all(self, tasks):
        workers = self._specification["array"]["workers"]
        # One count for all, which their processes inherit: to move each into one takes longer than its start.
        most = (self._specification["processes"] + _OWN_PROCESSES) * workers
        count = ProcessCount(None if self._is_alone else most)
        count.enter()
        if not self._is_alone:
            Container(self._specification).warm_up()  # what it has to look up once, tasks inherit
            gc.enable()
            getattr(gc, "freeze", int)()  # from Python 3.7 on: pages stay in common
        self._cancelled.look()
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
        try:
            self._run_each(tasks)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if self._reporter is not None:
                self._reporter.close()
            self._pool.close()
            count.leave()
            count.close()

    def _run_each(self, tasks):
        for task in tasks:
            found = earlier_result(self._specification["earlier"], task[0])
            if found is None and task[0] in self._cancelled:
                found = cancelled(task, self._number, self._specification["attempt"])
            if found is not None:
                self._keep(found)
                continue
            self._pool.begin(task, unless=lambda: self._stopping)
            if self._stopping:
                break
            while self._pool.is_full:
                self._reap()
        while self._pool.running:
            self._reap()

    def _reap(self):
        """Wait for tasks to end, and write their results down."""
        for task, text, status in self._pool.ended():
            if text == "":
                continue  # somebody else has begun it
            attempt = self._specification["attempt"]
            found = loads(text) if text else result_of(task)
            result = found or broken(task, status, self._number, attempt)
            if self._told.pop(task[0], None) and result["state"] == INTERRUPTED:
                result = dict(result, state=CANCELLED, message=None)
            self._keep(result)

    def _tick(self, *_):
        """Each second, in a signal's handler and not in a thread: the element makes processes."""
        self._look()
        if self._reporter is None:  # most elements of one task end before
            self._reporter = self._make_reporter()
            gc.enable()
        if self._reporter.is_due():
            self._tell()
            self._reporter.report()

    def _report_at_the_end(self):
        """Where no element lives long enough to look at the time, whichever ends reports for all when that is due."""
        with suppress(OSError):
            if time.time() - os.stat(REPORTER).st_mtime < self._specification["progress_seconds"]:
                return
        reporter = self._make_reporter()
        reporter.report()
        reporter.close()

    def _make_reporter(self):
        from .array_progress import Reporter

        return Reporter(self._specification, self._news, self._here)

    def _look(self):
        """Have those of the running tasks end that are not wanted any more."""
        self._cancelled.look()
        now = time.monotonic()
        for number in self._pool.running:
            if number not in self._cancelled:
                continue
            asked = self._told.setdefault(number, now)
            if asked == now:
                self._pool.tell(number, signal.SIGTERM)
            elif now - asked >= _KILLED_AFTER:
                self._pool.tell(number, signal.SIGKILL)

    def _keep(self, result):
        """Write a task's result down."""
        if result["state"] != INTERRUPTED:
            self._done[result["state"]] += 1
        if result["state"] == "failed":
            self._failed.append(result["id"])
        self._append(result)

    def _append(self, line):
        self._results.write(dumps(line) + "\n")
        self._results.flush()

    def _numbers(self):
        return dict(self._done, which=self._failed[-MOST_NAMED:])

    def _tell(self):
        """Note how far it is, and nothing that a power cut could take back."""
        os.fsync(self._results.fileno())
        with suppress(OSError):  # what cannot be noted meanwhile is nobody's failure
            write(os.path.join(self._place, DONE), dumps(self._numbers()))

    def _end(self):
        # Where an element ends at once, whoever reports of it has its results on the disk: a commit of the file system
        # for each takes more than its task.
        if self._reporter is not None:
            os.fsync(self._results.fileno())
        self._results.close()
        os.rename(os.path.join(self._place, RESULTS), os.path.join(self._place, ENDED))

    def _stop(self, received, _):
        """Slurm says it before it kills: begin nothing more, and let what runs end in order."""
        self._stopping = True
        for number in self._pool.running:
            self._pool.tell(number, received)
