"""The baseline's side that holds AiiDA, in a process of its own with the baseline's environment.

`code PROFILE IMAGE` makes the ContainerizedCode; `interval PROFILE SECONDS` sets the shortest time between two looks at
the queue; `submit PROFILE` submits work chains for each line it reads (`[count, script]`), and prints their pks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import aiida
from aiida.engine import submit
from aiida.orm import ContainerizedCode, Str, load_code, load_computer

from benchmarks.plain_chain import PlainChain

COMPUTER = "plain"
CODE = "container"
ENGINE = (
    "bwrap --unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --ro-bind {image_name} / "
    "--proc /proc --dev /dev --tmpfs /tmp --bind . /work --chdir /work --die-with-parent --"
)


def main(action: str, profile: str, *rest: str) -> None:
    """Do one thing."""
    aiida.load_profile(profile)
    actions: dict[str, Callable[..., None]] = {
        "code": _code,
        "interval": _interval,
        "submit": _submit,
    }
    actions[action](*rest)


def _code(image: str) -> None:
    ContainerizedCode(
        label=CODE,
        computer=load_computer(COMPUTER),
        image_name=image,
        engine_command=ENGINE,
        filepath_executable="/bin/sh",
    ).store()


def _interval(seconds: str) -> None:
    load_computer(COMPUTER).set_minimum_job_poll_interval(float(seconds))


def _submit() -> None:
    code = load_code(f"{CODE}@{COMPUTER}")
    print("ready", flush=True)
    for line in sys.stdin:
        count, script = json.loads(line)
        pks = [
            submit(PlainChain, job={"code": code, "script": Str(script)}).pk for _ in range(count)
        ]
        print(json.dumps(pks), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
