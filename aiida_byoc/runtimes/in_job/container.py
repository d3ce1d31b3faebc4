"""Run the container: once, with its limits; pass signals on to it; leave nothing of it."""

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time

from .ending import Ending, ask, ending, last_words
from .environment import environment
from .limits import ProcessCount, leash, limit_processes
from .orphans import wait_for_orphans
from .placeholders import (
    CELL,
    ENVIRONMENT,
    PIDFILE,
    RUNTIME_DIRECTORY,
    SCRATCH,
    SECCOMP,
    SHARED_MEMORY,
    Placeholders,
    scratch,
)
from .places import SHARED_MEMORY_PLACE, OwnPlace, make_private, scratch_place
from .seccomp import tightened_profile
from .streams import Streams

_IN_RUNTIME = (RUNTIME_DIRECTORY, ENVIRONMENT, CELL, PIDFILE, SECCOMP)
"""Who names one of these needs the runtime's directory."""
_AFTERWARDS_SECONDS = 60
_BIRTH_SECONDS = 30


class Container:
    """The container of a job: run once, signalled meanwhile."""

    def __init__(self, specification, task=None, descriptors=()):
        """`task` is its number in a parallel job; `descriptors` are open, and the container's to use."""
        self._specification = specification
        self._launch = specification["runtime"]
        self._launch_text = _text_of(specification)
        self._env = environment(specification)
        self._descriptors = descriptors
        self._places = [
            OwnPlace(scratch_place(specification.get("scratch")), "scratch"),
            OwnPlace(SHARED_MEMORY in self._launch_text and SHARED_MEMORY_PLACE, "shm"),
        ]
        self._words = Placeholders(specification, task)
        self._words.name(
            local_scratch=self._places[0].path,
            shared_memory=self._places[1].path,
            env_json=json.dumps(["{}={}".format(*each) for each in self._env.items()]),
            env_names=",".join(sorted(self._env)),
        )
        self._process = None
        self._child = None

    def warm_up(self):
        """Look up what is the same for every container like this one."""
        self._lacking()
        self._environment()
        ending(self._launch, "", {}, 1, "nothing")

    def run(self):
        """Run it to its end."""
        lacking = self._lacking()
        if lacking:
            return Ending(None, lacking, False)
        told_fd, status_fd = os.pipe()
        waiting_fd, gate_fd = os.pipe()
        self._words.name(status_fd=status_fd, gate_fd=waiting_fd)
        most = self._specification["processes"] * self._tasks_here
        count = ProcessCount(None if "array" in self._specification else most)
        streams = Streams(self._specification["caps"]["max_log_bytes"])
        try:
            try:
                self._prepare()
                self._process = self._start([status_fd, waiting_fd], streams)
            finally:
                os.close(status_fd)
                os.close(waiting_fd)
                streams.hand_over()
            facts = self._listen(told_fd, gate_fd, count)
            returned = self._process.wait()
            self._ask(facts, returned)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Ending(None, str(error), False)
        finally:
            self._clean_up()
            wait_for_orphans()
            streams.finish()
            for place in self._places:
                place.remove()
            count.close()
        said = last_words(streams)
        return ending(self._launch, self._specification["argv"][0], facts, returned, said)

    def used(self):
        """CPU seconds, and the largest process, MiB."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024

    def signal(self, number):
        """Send a signal to the container's program; one that comes too early is kept for it."""
        if not self._reach(number):
            threading.Thread(target=self._reach_later, args=(number,), daemon=True).start()

    def _lacking(self):
        for name in self._launch["programs"]:
            if not _place_of(name):
                return "{} is not on the compute node's PATH".format(name)
        for name in map(self._words.text, self._launch["needs"]):
            if not os.path.exists(name):
                return "{} is not on the compute node".format(name)
        return None

    def _environment(self):
        """The runtime's own environment."""
        launch, given = self._launch, self._env
        env = given if launch["env"] is None else self._words.env(launch["env"])
        job = _inherited(tuple(launch["inherited"]))
        prefix, named = launch["env_prefix"], {}
        if prefix is not None:
            named = {prefix + name: value for name, value in given.items() if name != "HOME"}
        return {**job, **env, **named}

    def _reach(self, number):
        program = self._program()
        if program is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, number)
        return program is not None

    def _reach_later(self, number):
        until = time.monotonic() + _BIRTH_SECONDS
        while time.monotonic() < until and not self._reach(number):
            time.sleep(0.01)

    def _program(self):
        """The pid of the program, or of who passes its signals on; `None` before it is known."""
        if self._launch["program"] == "runtime":
            return self._process and self._process.pid
        place = self._words.text(PIDFILE)
        if self._launch["program"] == "grandchild":
            place = "/proc/{0}/task/{0}/children".format(self._child)
        with contextlib.suppress(OSError, IndexError), open(place, encoding="ascii") as file:
            return int(file.read().split()[0])
        return None

    @property
    def _tasks_here(self):
        return self._specification["tasks"]["per_node"] if self._specification.get("tasks") else 1

    @property
    def _needs_scratch(self):
        return SCRATCH in self._launch_text

    @property
    def _needs_runtime(self):
        files = self._launch["files"] or self._launch["env_line"]
        return files or any(place in self._launch_text for place in _IN_RUNTIME)

    def _prepare(self):
        if self._needs_runtime:
            os.makedirs(self._words.runtime, mode=0o700, exist_ok=True)
        for place in self._places:
            place.make()
        if self._needs_scratch:
            make_private(scratch())
            make_private(self._words.text(SCRATCH))
        for path, text in self._launch["files"].items():
            _write_private(self._words.text(path), self._words.text(text))
        if SECCOMP in self._launch_text:
            profile, path = tightened_profile(), os.path.join(self._words.runtime, "seccomp")
            self._words.name(seccomp=path if profile else None)
            _write_private(path, profile or "")
        form = self._launch["env_line"]
        if form:
            lines = [_line(form, *each) for each in self._env.items()]
            _write_private(self._words.text(ENVIRONMENT), "".join(lines))

    def _start(self, descriptors, streams):
        launch = self._launch
        command = [*self._words.words(launch["command"]), *self._specification["argv"]]
        orphaned = signal.SIGKILL if launch["orphaned"] == "KILL" else signal.SIGTERM
        # Found on the machine's PATH: the environment given below may be the container's.
        command[0] = _place_of(command[0]) or command[0]
        return subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=streams.out,
            stderr=streams.err,
            pass_fds=(*self._descriptors, *(descriptors if launch["started"] == "status" else ())),
            preexec_fn=leash(orphaned),  # noqa: PLW1509  (it takes no lock)
        )

    def _listen(self, told_fd, gate_fd, count):
        """Gather what the runtime tells until it has nothing more to tell; set limits and open the gate in between."""
        facts = {}
        with os.fdopen(told_fd, "rb") as told:
            for line in told:
                with contextlib.suppress(ValueError):
                    facts.update(json.loads(line.decode("utf-8", "replace")))
                if "child-pid" in facts and self._child is None:
                    self._child = facts["child-pid"]
                    count.add(self._child)
                    limit_processes(self._child, self._specification["processes"])
                    with contextlib.suppress(OSError):  # nobody waits for it
                        os.write(gate_fd, b".")
        return facts

    def _ask(self, facts, returned):
        """Have a runtime that wrote the container's pid down tell how it ended, before it forgets."""
        launch = self._launch
        if launch["started"] == "pidfile" and os.path.exists(self._words.text(PIDFILE)):
            command = self._words.words(launch["status"])
            facts["asked"] = ask(command, self._environment(), returned)

    def _clean_up(self):
        launch = self._launch
        for command in launch["afterwards"] if self._process else ():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.call(
                    self._words.words(command),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_AFTERWARDS_SECONDS,
                )
        if self._needs_runtime:
            shutil.rmtree(self._words.runtime, ignore_errors=True)
        if self._needs_scratch:
            shutil.rmtree(self._words.text(SCRATCH), ignore_errors=True)
            with contextlib.suppress(OSError):  # other tasks may have theirs there
                os.rmdir(scratch())


# Looked up once: the tasks of an array inherit it.
@functools.lru_cache(maxsize=None)
def _place_of(program):
    return shutil.which(program)


@functools.lru_cache(maxsize=None)
def _inherited(prefixes):
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _text_of(specification):
    """How the runtime is started, as text to look for placeholders in."""
    text = specification.get("runtime_text")
    if text is None:
        text = specification["runtime_text"] = json.dumps(specification["runtime"])
    return text


def _line(form, name, value):
    if "\n" in value:
        raise ValueError("the runtime cannot hand over {}: its value has a line break".format(name))
    return form.format(name=name, value=value) + "\n"


def _write_private(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
