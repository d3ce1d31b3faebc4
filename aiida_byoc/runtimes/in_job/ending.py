"""How a container ended: by what proves it, and where nothing does, by what the runtime said last."""

from .light import suppress

_UNKNOWN = 255
_LONGEST = 300
_CALL_SECONDS = 60


def ending(launch, program, facts, returned, said):
    """Return the program's exit status, or `None` and why it was not started; and whether the runtime works here.

    `facts` were told on the status descriptor, or when asked; `returned` is how the runtime's process ended, as
    `subprocess` has it; `said` are the last lines of the container's stderr.
    """
    code, started = status(returned), returned < 0
    last = said.rpartition("\n")[2] or "the runtime did not say why"
    if launch["started"] == "status":
        code, started = facts.get("exit-code", code), started or "exit-code" in facts
    elif launch["started"] == "pidfile":
        code, started = facts.get("asked", code), started or "asked" in facts
    elif code != 0:
        last = _line(launch["unusable"], said)
        started = last is None
    else:
        started = True
    if code != 0 and "exit-code" not in facts:
        could_not = _line(launch["not_started"], said)
        if could_not:
            return None, "{}: {}".format(program[:100], could_not), True
    return (code, None, True) if started else (None, last, False)


def status(returned):
    """The exit status of a process, as a shell says it."""
    return 128 - returned if returned < 0 else returned


def ask(command, env, returned):
    """The exit status that a command of the runtime tells, once the container has ended.

    The process that started it may say 0 whatever happened: `podman run` does, rootless, when it gets SIGTERM (measured
    with 4.3.1).
    """
    import subprocess

    try:
        said = subprocess.check_output(command, env=env, stdin=subprocess.DEVNULL)
        return int(said.split()[-1]) & 255
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return status(returned) or _UNKNOWN


def call(command, env):
    """Run a command of the runtime's that nobody hears of."""
    import subprocess

    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.call(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_CALL_SECONDS,
        )


def last_words(streams):
    """The last lines that were said on stderr: the runtime's own, where the program never ran."""
    lines = streams.last_of_err.decode("utf-8", "replace").split("\n")
    said = (" ".join(line.split())[:_LONGEST].rstrip(".") for line in lines)
    return "\n".join(line for line in said if line)


def _line(pattern, text):
    """The first line that matches."""
    if not pattern or not text:
        return None
    import re

    found = [line for line in text.split("\n") if re.search(pattern, line)]
    return found[0] if found else None
