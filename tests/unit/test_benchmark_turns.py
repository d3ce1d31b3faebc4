"""Both alternatives of a benchmark are measured under the same conditions."""

from __future__ import annotations

import os
import subprocess

from benchmarks.turns import in_turns, on_one_core, timed


def test_who_is_first_in_a_round_is_second_in_the_next():
    calls = []

    def said(name):
        calls.append(name)
        return float(len(calls))

    took = in_turns(lambda: said("a"), lambda: said("b"), rounds=3, each=2)

    assert "".join(calls) == "aabb" + "bbaa" + "aabb"
    assert took == ([1, 2, 7, 8, 9, 10], [3, 4, 5, 6, 11, 12])


def test_all_that_is_asked_counts():
    asked = []

    seconds = timed(lambda: asked.append(True))()

    assert asked == [True]
    assert seconds > 0


def test_processes_share_a_core_for_a_while():
    cores = os.sched_getaffinity(0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        with on_one_core(other.pid):
            shared = [os.sched_getaffinity(pid) for pid in (0, other.pid)]
        after = [os.sched_getaffinity(pid) for pid in (0, other.pid)]

    assert shared == [{min(cores)}] * 2
    assert after == [cores] * 2
