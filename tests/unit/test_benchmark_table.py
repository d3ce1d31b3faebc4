"""What a benchmark's figures mean, and how they are shown."""

from __future__ import annotations

import json

import pytest

from benchmarks import table
from benchmarks.figures import Measure, at_least, at_most, per_second, quantile
from benchmarks.keeping import Keeper
from benchmarks.statements import counted, most_frequent
from benchmarks.usage import part_of


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 2), (0.75, 3), (0.76, 4), (0.99, 4), (1, 4), (0.01, 1)]
)
def test_a_quantile_is_one_of_the_values(share, expected):
    assert quantile([4, 1, 3, 2], share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], 0), ([1], 1.1)])
def test_there_is_no_quantile_of_nothing(values, share):
    with pytest.raises(ValueError, match=r"quantile|share"):
        quantile(values, share)


def test_a_rate_needs_time():
    assert per_second(10, 4) == 2.5
    assert per_second(10, 0) == 0


@pytest.mark.parametrize(
    ("target", "value", "baseline", "met"),
    [
        (at_most(3), 6, 2, True),
        (at_most(3), 6.1, 2, False),
        (at_least(0.8), 8, 10, True),
        (at_least(0.8), 7.9, 10, False),
        (at_least(300, "value"), 299, 1, False),
        (at_most(150, "value"), 150, None, True),
        (at_most(3), 6, None, None),
        (at_most(3), 6, 0, None),
        (None, 6, 2, None),
    ],
)
def test_a_target_is_met_by_ratio_or_value(target, value, baseline, met):
    measure = Measure(what="x", value=value, unit="ms", baseline=baseline, target=target)

    assert measure.is_met is met


def test_the_table_shows_ratio_and_verdict():
    measures = [
        Measure(what="p50", value=6, unit="ms", baseline=1.5, against="alone", target=at_most(3)),
        Measure(what="rate", value=1234.5, unit="/s", target=at_least(300, "value")),
    ]

    lines = table.results({"acceptance": measures}, {"jobs": "out of time"}).splitlines()

    assert lines == [
        "| row | what | measured | baseline | ratio | target | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| acceptance | p50 | 6 ms | 1.5 ms (alone) | 4 | ≤ 3 x | no |",
        "| acceptance | rate | 1,234 /s | - | - | ≥ 300 /s | yes |",
        "| jobs | not measured: out of time | - | - | - | - | - |",
    ]


def test_a_bar_in_a_cell_does_not_end_it():
    assert table.grid(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.01234, "0.0123"), (1.5, "1.5"), (12.345, "12.3"), (123456.7, "123,457")],
)
def test_a_figure_has_the_digits_that_count(value, shown):
    assert table.figure(value) == shown


def test_raw_data_and_summary_are_kept(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.raw("jobs", "first", [1, 2])
    keeper.raw("jobs", "second", [3])
    measure = Measure(what="rate", value=2, unit="/s", baseline=1, target=at_least(1))
    keeper.summary({"cores": 2}, {"jobs": 0.5}, {"jobs": [measure]}, {"idle": "no lab"})

    raw = json.loads((keeper.directory / "jobs.json").read_text())
    summary = json.loads((keeper.directory / "summary.json").read_text())

    assert raw == {"first": [1, 2], "second": [3]}
    assert summary["load_before"] == {"jobs": 0.5}
    assert summary["failed"] == {"idle": "no lab"}
    assert (summary["rows"]["jobs"][0]["ratio"], summary["rows"]["jobs"][0]["is_met"]) == (2, True)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("python -m aiida -p byoc data byoc agent launch", "launcher"),
        ("python bin/verdi -p byoc data byoc agent run", "agent"),
        ("python bin/verdi -p byoc daemon worker", "AiiDA's workers"),
        ("python -m adapter", "adapter"),
        ("postgres: aiida aiida_byoc 127.0.0.1(4711) idle", "PostgreSQL"),
        ("slurmstepd: [17.batch]", "Slurm's steps"),
        ("slurmd -D -N n1", "Slurm's node daemons"),
        ("sleep 5", "other"),
    ],
)
def test_a_process_belongs_to_a_part(command, part):
    assert part_of(command) == part


def test_statements_are_counted_by_who_sent_them(tmp_path):
    log = tmp_path / "postgres.log"
    log.write_text(
        "byoc-bench|byoc-channel|LOG:  statement: BEGIN\n"
        "byoc-bench|byoc-channel|LOG:  execute <unnamed>: INSERT INTO byoc.job\n"
        "  VALUES (1)\n"
        "byoc-bench|byoc-channel|DETAIL:  parameters: $1 = '1'\n"
        "byoc-bench|byoc-channel|LOG:  statement: COMMIT\n"
        "byoc-bench|byoc-worker-17|LOG:  execute _pg3_0: SELECT 1\n"
        "byoc-bench|byoc-worker-18|LOG:  statement: SELECT 'a', 22\n"
        "byoc-bench|byoc-worker-18|LOG:  statement: SELECT 'b', 3\n"
        "byoc-bench||LOG:  statement: SELECT 2\n"
    )

    assert counted(log, 0) == {
        "agent: channel": {"statements": 3, "commits": 1},
        "AiiDA's workers": {"statements": 3, "commits": 0},
        "others": {"statements": 1, "commits": 0},
    }
    assert most_frequent(log, 0)["AiiDA's workers"] == {"SELECT ?, ?": 2, "SELECT ?": 1}
