"""Versions with a known vulnerability are named, and only those."""

from __future__ import annotations

import re

import pytest

from aiida_byoc.cli.advisories import FLOORS, Advisory, Floor, advisories, is_mended

SLURM = Floor("slurm", ("23.11.11", "24.05.8", "24.11.5"), ("CVE-2025-43904",))


@pytest.mark.parametrize(
    ("found", "mended"),
    [
        ("22.05.8", False),
        ("23.02.99", False),
        ("23.11.10", False),
        ("23.11.11", True),
        ("24.05.7", False),
        ("24.05.8", True),
        ("24.08.1", False),
        ("24.11.4", False),
        ("24.11.5", True),
        ("25.05.0", True),
        ("25.05", True),
    ],
)
def test_each_branch_has_its_own_first_sound_version(found: str, mended: bool) -> None:
    assert is_mended(found, SLURM) == mended


def test_what_is_open_is_named_with_what_to_install() -> None:
    has = {"slurm": "24.05.4", "runc": "1.1.12", "pyjwt": "2.15.1", "starlette": "0.47.2"}

    slurm, runc, starlette = advisories(installed=has.get)

    assert slurm == Advisory(
        "slurm 24.05.4 is open to CVE-2025-43904",
        "install slurm 23.11.11 or 24.05.8 or 24.11.5, or newer",
    )
    assert "CVE-2024-21626" not in runc.wrong
    assert "CVE-2025-31133" in runc.wrong
    assert starlette.wrong.startswith("starlette 0.47.2 is open to CVE-2025-54121, CVE-2025-62727")


@pytest.mark.parametrize(
    ("component", "found", "cve"),
    [
        ("apptainer", "1.1.7", "CVE-2023-30549"),
        ("apptainer", "1.1.8", None),
        ("apptainer", "1.2.0", "CVE-2023-38496"),
        ("apptainer", "1.2.1", None),
        ("bubblewrap", "0.4.0", "CVE-2020-5291"),
        ("bubblewrap", "0.8.0", None),
        ("crun", "1.4.3", "CVE-2022-27650"),
        ("crun", "1.8.1", None),
    ],
)
def test_the_runtimes_that_stand_between_tenants_are_looked_at(
    component: str, found: str, cve: str | None
) -> None:
    told = advisories(installed={component: found}.get)

    assert [cve in each.wrong for each in told] == [True] * (cve is not None)


@pytest.mark.parametrize(
    ("found", "is_open"), [("15.17", True), ("15.18", False), ("17.0", True), ("19.0", False)]
)
def test_a_server_is_judged_by_what_it_says_itself(found: str, is_open: bool) -> None:
    """A release of PostgreSQL has one number."""
    told = advisories({"postgresql": found}, installed={}.get)

    assert ["CVE-2026-6473" in each.wrong for each in told] == [True] * is_open


def test_what_is_not_installed_or_new_is_not_named() -> None:
    assert advisories(installed={}.get) == []
    assert advisories(installed=lambda _: "99.0") == []


def test_what_the_distribution_has_mended_is_not_named() -> None:
    """Debian mends old versions, and its changelog names what; so its Slurm is old and sound where it says so."""
    named = " ".join(each.wrong for each in advisories())

    for cve in re.findall(r"CVE-\d+-\d+", named):
        assert any(cve in floor.cves for floor in FLOORS)
    assert "CVE-2024-21626" not in named


def test_the_table_is_in_order() -> None:
    for floor in FLOORS:
        numbers = [[int(part) for part in each.split(".")] for each in floor.mended]
        assert numbers == sorted(numbers)
        assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}", cve) for cve in floor.cves)
