"""`python -m lab.chaos`: what `make chaos` calls. Exit status 1 if anything is there that must not be."""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

from lab.chaos.arena import arena
from lab.chaos.schedule import Chaos
from lab.paths import LabPaths

LAB = ".lab-chaos"


def main() -> int:
    """Run, print the table, and leave the lab up if there is a violation to look into."""
    parser = argparse.ArgumentParser(prog="python -m lab.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long jobs and faults come")
    parser.add_argument("--seed", type=int, default=None, help="of every random choice")
    parser.add_argument("--rate", type=float, default=0.4, help="jobs per second")
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between faults")
    parser.add_argument("--settle", type=float, default=240, help="seconds without an event: stuck")
    parser.add_argument("--lab", type=Path, default=Path(LAB), help="directory of the lab")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"chaos: seed {seed}, {chosen.seconds:g} s, {chosen.rate:g} jobs/s", flush=True)
    paths = LabPaths(chosen.lab)
    log = paths.root.with_suffix(".log")
    logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with arena(paths, seed) as built:
        run = Chaos(
            arena=built,
            chance=random.Random(seed),  # noqa: S311  (reproducible, not secret)
            rate=chosen.rate,
            every=chosen.every,
            settle=chosen.settle,
        )
        truths = run.run(chosen.seconds)
        harmed = run.foreign_cancelled()
        print("\n".join(["| fault | times |", "|---|---|"]))
        for name, count in sorted(run.faults.items()):
            print(f"| {name} | {count} |")
        print(f"| killed in all | {run.kills} |\n")
        print(truths.table())
        print(f"| jobs of others that were cancelled | {harmed} |")
        holds = truths.holds and not harmed
        built.keep = not holds
    if not holds:
        print(f"chaos: the lab stays up; BYOC_LAB_DIR={chosen.lab} make down ends it")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
