"""What a table of benchmarks says of the machine it was measured on."""

from __future__ import annotations

import re

from benchmarks import machine


def test_the_versions_of_what_runs_outside_python_are_known() -> None:
    """Also where no cluster is configured, which Slurm's commands of users need to say anything."""
    described = machine.describe()

    for program in ("postgresql", "slurm", "node"):
        assert re.fullmatch(r"\d+[\d.]*\d", described["versions"][program]), program
    assert described["versions"]["slurm"] in machine.sentence(described)
