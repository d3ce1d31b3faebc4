"""Run the container: once, with its limits; pass signals on to it; leave nothing of it."""

import time
from _thread import RLock

from .ending import ask, call, ending, last_words
from .environment import environment
from .light import dumps, loads, once, os, signal, suppress, which
from .limits import ProcessCount, limit_processes
from .placeholders import (
    CELL,
    ENVIRONMENT,
    KEY_FD,
    PIDFILE,
    RUNTIME_DIRECTORY,
    SCRATCH,
    SECCOMP,
    SHARED_MEMORY,
    Placeholders,
    scratch,
)
from .spawn import start, wait_for_orphans
from .streams import Streams

_IN_RUNTIME = (RUNTIME_DIRECTORY, ENVIRONMENT, CELL, PIDFILE, SECCOMP)
"""Who names one of these needs the runtime's directory."""
_BIRTH_SECONDS = 30


class Container:
    """The container of a job: run once, signalled meanwhile."""

    def __init__(self, specification, task=None, descriptors=(), watched=False, logs=(1, 2)):
        """Nothing is started yet.

        Args:
            task: its number in a parallel job, or in an array.
            descriptors: open, and the container's to use.
            watched: who started this process counts the container's, and kills the runtime if this process dies before
                the runtime has seen to that itself.
            logs: where its stdout and stderr go (streams.py).
        """
        self._specification = specification
        self._launch = specification["runtime"]
        self._launch_text = _text_of(specification)
        self._env = environment(specification)
        self._descriptors, self._watched, self._logs = descriptors, watched, logs
        self._places = self._own_places()
        self._words = Placeholders(specification, task)
        self._words.name(
            **{name: place.path for name, place in self._places.items()},
            env_json=lambda: dumps(["{}={}".format(*each) for each in self._env.items()]),
            env_names=lambda: ",".join(sorted(self._env)),
        )
        self._runtime = 0  # its pid, while it is ours
        self._child, self._was_started, self._used = None, False, []
        # Of a pid that may be somebody else's by now nothing is signalled; who signals may interrupt who locked.
        self._ending, self._is_over = RLock(), False

    def warm_up(self):
        """Look up what is the same for every container like this one."""
        self._lacking()
        self._environment()
        ending(self._launch, "", {}, 1, "nothing")

    def run(self):
        """Run it to its end."""
        lacking = self._lacking()
        if lacking:
            return None, lacking, False
        told_fd, status_fd = os.pipe()
        waiting_fd, gate_fd = os.pipe()
        self._words.name(status_fd=status_fd, gate_fd=waiting_fd, key_fd=gate_fd)
        # Only where there is a gate; and with one process of the runtime's own beside each container's.
        is_ours = self._launch["started"] == "status" and not self._watched
        most = (self._specification["processes"] + 1) * self._tasks_here
        count = ProcessCount(most if is_ours else None)
        streams = Streams(self._specification["caps"]["max_log_bytes"], self._logs)
        try:
            try:
                self._prepare()
                count.enter()
                ours = [status_fd, waiting_fd, *([gate_fd] if KEY_FD in self._launch_text else ())]
                self._runtime = self._start(ours, streams)
            finally:
                count.leave()
                os.close(status_fd)
                os.close(waiting_fd)
                streams.release()
            facts = self._listen(told_fd, gate_fd, streams)
            returned = self._wait()
            self._ask(facts, returned)
        except (OSError, ValueError) as error:
            return None, str(error), False
        finally:
            os.close(told_fd)
            os.close(gate_fd)
            self._clean_up()
            with self._ending:
                self._is_over = True
            self._used += wait_for_orphans()
            streams.finish()
            for place in self._places.values():
                place.remove()
            count.close()
        said = last_words(streams)
        return ending(self._launch, self._specification["argv"][0], facts, returned, said)

    def used(self):
        """CPU seconds, and the largest process, MiB."""
        seconds = sum(each.ru_utime + each.ru_stime for each in self._used)
        return seconds, max((each.ru_maxrss for each in self._used), default=0) / 1024

    def signal(self, number):
        """Send a signal to the container's program; one that comes too early is kept for it."""
        if not self._reach(number):
            from threading import Thread

            Thread(target=self._reach_later, args=(number,), daemon=True).start()

    def _own_places(self):
        """Those that it has on this node, by what they are called in words; most have none."""
        asked, shares_memory = (
            self._specification.get("scratch"),
            SHARED_MEMORY in self._launch_text,
        )
        if not asked and not shares_memory:
            return {}
        from .places import own_places

        return own_places(asked, shares_memory)

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
        with self._ending:
            program = None if self._is_over else self._program()
            if program is not None:
                with suppress(ProcessLookupError):
                    os.kill(program, number)
            return self._is_over or program is not None

    def _reach_later(self, number):
        until = time.monotonic() + _BIRTH_SECONDS
        while time.monotonic() < until and not self._reach(number):
            time.sleep(0.01)

    def _program(self):
        """The pid of the program, or of who passes its signals on; `None` before it is known."""
        if self._launch["program"] == "runtime":
            return self._runtime or None
        place = self._words.text(PIDFILE)
        if self._launch["program"] == "grandchild":
            place = "/proc/{0}/task/{0}/children".format(self._child)
        with suppress(OSError, IndexError), open(place, encoding="utf-8") as file:
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
        for place in self._places.values():
            place.make()
        if not (self._needs_runtime or self._needs_scratch):
            return
        from .places import make_private, write_private

        if self._needs_scratch:
            make_private(scratch())
            make_private(self._words.text(SCRATCH))
        for path, text in self._launch["files"].items():
            write_private(self._words.text(path), self._words.text(text))
        if SECCOMP in self._launch_text:
            from .seccomp import tightened_profile

            profile, path = tightened_profile(), os.path.join(self._words.runtime, "seccomp")
            self._words.name(seccomp=path if profile else None)
            write_private(path, profile or "")
        form = self._launch["env_line"]
        if form:
            lines = [_line(form, *each) for each in self._env.items()]
            write_private(self._words.text(ENVIRONMENT), "".join(lines))

    def _start(self, descriptors, streams):
        launch = self._launch
        command = [*self._words.words(launch["command"]), *self._specification["argv"]]
        # Found on the machine's PATH: the environment given below may be the container's.
        command[0] = _place_of(command[0]) or command[0]
        passed = (*self._descriptors, *(descriptors if launch["started"] == "status" else ()))
        held_by = signal.SIGKILL if launch["orphaned"] == "KILL" else signal.SIGTERM
        if launch.get("leashed") and (self._watched or KEY_FD in self._launch_text):
            held_by = None
        pid = start(command, self._environment(), streams, passed, held_by)
        self._was_started = True
        return pid

    def _listen(self, told_fd, gate_fd, streams):
        """Gather what the runtime tells until it has nothing more to tell; set limits and open the gate in between."""
        facts, said = {}, [b""]

        def hear(block):
            *lines, said[0] = (said[0] + block).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    facts.update(loads(line.decode("utf-8", "replace")))
            if "child-pid" in facts and self._child is None:
                self._child = facts["child-pid"]
                limit_processes(self._child, self._specification["processes"])
                with suppress(OSError):  # nobody waits for it
                    os.write(gate_fd, b".")

        if self._launch["started"] == "status":
            streams.carry(told_fd, hear)
        else:
            streams.start()
        return facts

    def _wait(self):
        """Wait for the runtime's process; return how it ended, as `subprocess` has it."""
        os.waitid(os.P_PID, self._runtime, os.WEXITED | os.WNOWAIT)
        with self._ending:
            runtime, self._runtime = self._runtime, 0
        _, status, used = os.wait4(runtime, 0)
        self._used.append(used)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

    def _ask(self, facts, returned):
        """Have a runtime that wrote the container's pid down tell how it ended, before it forgets."""
        launch = self._launch
        if launch["started"] == "pidfile" and os.path.exists(self._words.text(PIDFILE)):
            command = self._words.words(launch["status"])
            facts["asked"] = ask(command, self._environment(), returned)

    def _clean_up(self):
        launch = self._launch
        for command in launch["afterwards"] if self._was_started else ():
            call(self._words.words(command), self._environment())
        if not (self._needs_runtime or self._needs_scratch):
            return
        from .places import remove

        if self._needs_runtime:
            remove(self._words.runtime)
        if self._needs_scratch:
            remove(self._words.text(SCRATCH))
            with suppress(OSError):  # other tasks may have theirs there
                os.rmdir(scratch())


# Looked up once: the tasks of an array inherit it.
_place_of = once(which)


@once
def _inherited(prefixes):
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _text_of(specification):
    """How the runtime is started, as text to look for placeholders in."""
    text = specification.get("runtime_text")
    if text is None:
        text = specification["runtime_text"] = dumps(specification["runtime"])
    return text


def _line(form, name, value):
    if "\n" in value:
        raise ValueError("the runtime cannot hand over {}: its value has a line break".format(name))
    return form.format(name=name, value=value) + "\n"
