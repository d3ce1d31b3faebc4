"""Run what the specification says: a job of its own, or an element of an array."""

import json
import os
import sys

from . import SPECIFICATION


def main():
    """Import only what is needed: every start of a job counts."""
    with open(SPECIFICATION, encoding="utf-8") as file:
        specification = json.load(file)
    if "array" in specification:
        from .array import run_element

        return run_element(specification)
    from .job import run_job

    return run_job(specification)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take the interpreter apart takes 3 ms
