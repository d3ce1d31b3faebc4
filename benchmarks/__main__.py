"""`make bench`: measure rows, print one table.

    .venv/bin/python -m benchmarks [--quick] [--out .bench] [ROW …]

Without rows, all. Each has a bound in time; one that fails or goes beyond it keeps nobody from the others.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks import machine, table
from benchmarks.figures import Measure
from benchmarks.keeping import Keeper
from benchmarks.laboratory import Bench, Laboratory
from benchmarks.rows import ROWS

START_SECONDS = 180.0
"""For the lab, which the first row that needs one starts."""


class OutOfTime(Exception):
    """A row took longer than it may."""


def main(arguments: list[str]) -> int:
    """Measure; 0 only if every row was measured, whatever it found."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="What things cost.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: a look")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="where raw data go")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.rows) - set(ROWS)):
        parser.error(f"no rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    lab = Laboratory()
    bench = Bench(lab, Keeper(asked.out), quick=asked.quick)
    found: dict[str, list[Measure]] = {}
    loads: dict[str, float] = {}
    failed: dict[str, str] = {}
    described = machine.describe()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`: the lab ends too
    try:
        for name in [each for each in ROWS if not asked.rows or each in asked.rows]:
            row = ROWS[name]
            loads[name] = machine.load()
            seconds = row.quick_seconds if asked.quick else row.seconds
            began = time.monotonic()
            _say(f"{name}: {row.about} (at most {seconds + START_SECONDS:.0f} s)")
            try:
                with _bounded(seconds + START_SECONDS):
                    found[name] = row.measure(bench)
            except Exception as error:
                failed[name] = (str(error).splitlines() or [type(error).__name__])[0][:200]
                _say(traceback.format_exc())
            _say(f"{name}: took {time.monotonic() - began:.0f} s")
            bench.keep.summary(described, loads, found, failed)
    finally:
        lab.down()
    before = ", ".join(f"{name} {load:g}" for name, load in loads.items())
    print(f"\n{machine.sentence(described)}\nLoad before each row: {before}\n")
    print(table.results(found, failed))
    print(f"\nRaw data: {bench.keep.directory}")
    return 1 if failed else 0


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
