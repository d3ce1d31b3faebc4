"""Run the container and find out how it ended."""

import json
import os
import shutil
import subprocess

from . import STATUS_FD
from .orphans import wait_for_orphans


def run_container(specification):
    """Return (exit code of the program, None), or (None, why it did not start)."""
    reading, writing = os.pipe()
    runtime, *words = specification["command"]
    # Found on the machine's PATH: the environment given below is the container's.
    command = [shutil.which(runtime) or runtime, *words]
    tells = STATUS_FD in command
    if tells:  # the first is the runtime's; the program's own words are not touched
        command[command.index(STATUS_FD)] = str(writing)
    try:
        process = subprocess.Popen(
            command, env=specification["env"], stdin=subprocess.DEVNULL, pass_fds=[writing]
        )
    except OSError as error:
        return None, "the runtime {} cannot be started: {}".format(runtime, error.strerror)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as status:
        told = status.read()
    returned = process.wait()
    wait_for_orphans()
    if tells and exit_code_told(told) is None:
        if returned < 0:
            return 128 - returned, None
        return None, "the program was not started: " + last_words()
    return (128 - returned if returned < 0 else returned), None


def last_words():
    """What the runtime said: nothing else wrote to the job's stderr, since the program never ran."""
    try:
        with open("stderr", encoding="utf-8", errors="replace") as file:
            said = " ".join(file.read(4096).split())
    except OSError:
        said = ""
    return said[-300:].rstrip(".") or "the runtime did not say why"


def exit_code_told(text):
    """Find `exit-code` among the JSON objects that bubblewrap writes, one after the other."""
    decoder = json.JSONDecoder()
    position, found = 0, None
    decoded = text.decode("utf-8", "replace").strip()
    while position < len(decoded):
        try:
            value, position = decoder.raw_decode(decoded, position)
        except ValueError:
            break
        found = value.get("exit-code", found)
        while position < len(decoded) and decoded[position].isspace():
            position += 1
    return found
