"""Run the container and find out how it ended."""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

from . import RUNTIME
from .limits import ProcessCount, leash, limit_processes
from .orphans import wait_for_orphans
from .placeholders import ENVIRONMENT, PIDFILE, SCRATCH, Placeholders, scratch
from .streams import Streams

_AFTERWARDS_SECONDS = 60
_BIRTH_SECONDS = 10

Ending = collections.namedtuple("Ending", ["code", "message", "usable"])
"""How it ended: the program's exit status, or `None` and why it was not started; whether the runtime works here."""


class Container:
    """The container of a job: run once, signalled meanwhile."""

    def __init__(self, specification):
        self._specification = specification
        self._launch = specification["runtime"]
        self._process = None
        self._child = None
        self._early = []

    def run(self):
        """Run it to its end."""
        missing = [name for name in self._launch["programs"] if not shutil.which(name)]
        if missing:
            return Ending(None, "{} is not on the compute node's PATH".format(missing[0]), False)
        told_fd, status_fd = os.pipe()
        waiting_fd, gate_fd = os.pipe()
        words = Placeholders(
            self._specification["rootfs"],
            self._specification["processes"],
            status_fd=status_fd,
            gate_fd=waiting_fd,
        )
        count = ProcessCount(self._specification["processes"])
        streams = Streams(self._specification["caps"]["max_log_bytes"])
        try:
            try:
                self._prepare(words)
                self._process = self._start(words, [status_fd, waiting_fd], streams)
            finally:
                os.close(status_fd)
                os.close(waiting_fd)
                streams.hand_over()
            facts = self._listen(told_fd, gate_fd, count)
            returned = self._process.wait()
            facts["has-pidfile"] = os.path.exists(words.text(PIDFILE))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Ending(None, str(error), False)
        finally:
            self._clean_up(words)
            wait_for_orphans()
            streams.finish()
            count.close()
        return self._ending(facts, returned)

    def signal(self, number):
        """Send a signal to the container's program; one that comes too early is kept for it."""
        program = self._program()
        if program is None:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, number)

    @property
    def _needs_scratch(self):
        return SCRATCH in json.dumps(self._launch)

    def _prepare(self, words):
        os.makedirs(RUNTIME, mode=0o700, exist_ok=True)
        if self._needs_scratch:
            os.makedirs(scratch(), mode=0o700, exist_ok=True)
            if os.lstat(scratch()).st_uid != os.geteuid():
                raise PermissionError("{} belongs to another user".format(scratch()))
        for path, text in self._launch["files"].items():
            _write_private(words.text(path), words.text(text))
        form = self._launch["env_line"]
        if form:
            env = self._specification["env"].items()
            lines = [_line(form, name, value) for name, value in env]
            _write_private(words.text(ENVIRONMENT), "".join(lines))

    def _start(self, words, descriptors, streams):
        launch = self._launch
        command = [*words.words(launch["command"]), *self._specification["argv"]]
        env = self._specification["env"] if launch["env"] is None else _filled(launch["env"], words)
        orphaned = signal.SIGKILL if launch["orphaned"] == "KILL" else signal.SIGTERM
        # Found on the machine's PATH: the environment given below may be the container's.
        command[0] = shutil.which(command[0]) or command[0]
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=streams.out,
            stderr=streams.err,
            pass_fds=descriptors if launch["started"] == "status" else (),
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
                    self._deliver_what_came_early()
        return facts

    def _deliver_what_came_early(self):
        until = time.monotonic() + _BIRTH_SECONDS
        alive = "/proc/{}".format(self._child)
        while self._early and time.monotonic() < until and os.path.exists(alive):
            if self._program() is None:
                time.sleep(0.01)
            else:
                self.signal(self._early.pop(0))

    def _program(self):
        """The pid of the program, or of who passes signals on to it; `None` before it is known."""
        if self._process is None or self._launch["program"] == "forwarded":
            return self._process and self._process.pid
        if self._child is None or self._launch["program"] == "child":
            return self._child
        children = "/proc/{0}/task/{0}/children".format(self._child)
        with contextlib.suppress(OSError), open(children, encoding="ascii") as file:
            for child in file.read().split():
                return int(child)
        return None

    def _ending(self, facts, returned):
        launch = self._launch
        code = 128 - returned if returned < 0 else returned
        if "exit-code" in facts:
            return Ending(facts["exit-code"], None, True)
        if code == 0 or returned < 0:
            return Ending(code, None, True)
        said = last_line()
        if _matches(launch["not_started"], said):
            program = self._specification["argv"][0][:100]
            return Ending(None, "{}: {}".format(program, said), True)
        if launch["started"] == "pidfile":
            ran = facts["has-pidfile"]
        else:
            ran = launch["started"] is None and not _matches(launch["unusable"], said)
        return Ending(code, None, True) if ran else Ending(None, said, False)

    def _clean_up(self, words):
        launch = self._launch
        for command in launch["afterwards"] if self._process else ():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.call(
                    words.words(command),
                    env=_filled(launch["env"], words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_AFTERWARDS_SECONDS,
                )
        shutil.rmtree(RUNTIME, ignore_errors=True)
        if self._needs_scratch:
            shutil.rmtree(scratch(), ignore_errors=True)


def _matches(pattern, text):
    return pattern is not None and re.search(pattern, text) is not None


def _filled(env, words):
    return {name: words.text(value) for name, value in env.items()}


def _line(form, name, value):
    if "\n" in value:
        raise ValueError("the runtime cannot hand over {}: its value has a line break".format(name))
    return form.format(name=name, value=value) + "\n"


def _write_private(path, text):
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)


def last_line():
    """The last thing that was said on the job's stderr: by the runtime, where the program never ran."""
    try:
        with open("stderr", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return said[-1][:300].rstrip(".") if said else "the runtime did not say why"
