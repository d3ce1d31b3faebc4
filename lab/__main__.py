"""`python -m lab up|down|demo`: what `make` calls."""

from __future__ import annotations

import sys

from lab import demo, process, stack
from lab.paths import LabPaths

USAGE = "usage: python -m lab up|down|demo"


def main(arguments: list[str]) -> int:
    """Run one command; 0 only if all of it worked."""
    commands = {"up": _up, "down": _down, "demo": _demo}
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        return commands[arguments[0]]()
    except (process.LabError, FileNotFoundError, FileExistsError) as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("lab: interrupted\n")
        return 130


def _up() -> int:
    paths = LabPaths()
    content = stack.up(paths)
    print(
        f"lab: up; adapter {content['adapter']['url']}, all the rest in {paths.root / stack.LAB_FILE}"
    )
    if "page" in content:
        print(f"lab: the page is at {content['page']['url']}")
    return 0


def _down() -> int:
    stack.down(LabPaths())
    print("lab: down")
    return 0


def _demo() -> int:
    """Run the demonstration on the lab that is up, or on one that lives as long as the demonstration."""
    paths = LabPaths()
    was_up = stack.is_up(paths)
    try:
        return demo.run(stack.up(paths))
    finally:
        if not was_up:
            stack.down(paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
