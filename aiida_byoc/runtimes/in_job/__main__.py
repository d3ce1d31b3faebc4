"""Run what the specification says: a job of its own, or an element of an array."""

import sys

from . import SPECIFICATION
from .light import loads, os, read


def main():
    """Run it, and end this process with its status; to take the interpreter apart takes 3 ms."""
    # Where this program lies, or whatever the current directory is: nothing more is looked for there.
    del sys.path[0]
    status = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run():
    """Import only what is needed: every start of a job counts."""
    specification = loads(read(SPECIFICATION))
    if "array" in specification:
        from .array import run_element

        return run_element(specification)
    from .job import run_job

    return run_job(specification)


if __name__ == "__main__":
    main()
