"""The benchmarks' books of CPU time hold what the lab's processes used, and nobody else's."""

from __future__ import annotations

import sys

from benchmarks.usage import Accounts
from lab import process
from tests.eventually import eventually
from tests.labs import scratch_lab

WORK = "import time\nwhile time.process_time() < 0.3: pass\n"
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WORK!r}])\n"
STAY = "print('done', flush=True)\nimport time\ntime.sleep(60)\n"


def test_work_of_a_process_and_of_its_children_is_counted_from_the_start_of_the_books():
    with scratch_lab("usage") as paths:
        accounts = Accounts(paths)
        accounts.restart()
        daemon = process.spawn(paths, "works", [sys.executable, "-c", WORK + CHILD + STAY])
        eventually(lambda: "done" in daemon.log.read_text(), "the work to be done")

        used = accounts.parts()
        accounts.restart()

        assert set(used) == {"other"}
        assert 0.5 < used["other"].cpu < 2
        assert used["other"].processes == 1
        assert used["other"].rss >= used["other"].largest > 1
        assert accounts.cpu() < 0.1
