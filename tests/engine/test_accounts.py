"""What a site's accounts let the node do: real Slurm, slurmdbd and MariaDB; only where BYOC_LAB_ACCOUNTING=slurmdbd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import accounting, slurm
from lab.paths import LabPaths
from lab.process import stop as stop_daemons
from tests.engine.driving import Underway, run

pytestmark = pytest.mark.skipif(
    not accounting.is_wanted(), reason="a Slurm without accounts; BYOC_LAB_ACCOUNTING=slurmdbd"
)


@pytest.fixture(scope="module")
def enforcing(paths: LabPaths, cluster: slurm.Slurm) -> Iterator[None]:
    """A controller that takes only accounts and QOS that it knows, within their limits: `proj42` and `swift`."""
    for words in (
        ("qos", "swift"),
        ("account", "proj42"),
        ("user", run("id", "-un").strip(), "account=proj42", "qos=+swift"),
    ):
        run("sacctmgr", "--immediate", "add", *words)
    loose = cluster.conf.read_text()
    for conf in (f"{loose}AccountingStorageEnforce=limits,qos\n", loose):
        cluster.conf.write_text(conf)
        stop_daemons(paths, "slurmctld")
        slurm.start_controller(paths)
        if conf != loose:
            yield


def test_account_and_qos_reach_slurm(
    node: Any, enforcing: None, scontrol: Callable[..., str]
) -> None:
    """By the words that the policy has for them; what Slurm does not know is refused for good."""
    placed = {"account": "proj42", "qos": "swift"}
    good = node.accept("true", placed=placed)
    bad = [node.accept("true", placed={**placed, word: "nobodys"}) for word in placed]

    for submission in (good, *bad):
        node.run(submission)

    job = node.events(good)[-1]["scheduler"]["job_id"]
    assert "Account=proj42 QOS=swift" in scontrol("show", "job", job)
    errors = [node.events(submission)[-1]["error"] for submission in bad]
    assert [error["code"] for error in errors] == ["scheduler_refused"] * 2
    assert ["Invalid account" in errors[0]["message"], "Invalid qos" in errors[1]["message"]] == [
        True,
        True,
    ]


LIMITS = {
    "AssocMaxSubmitJobLimit": ("user where account=proj42 set", "MaxSubmitJobs"),
    "QOSMaxSubmitJobPerUserLimit": ("qos swift set", "MaxSubmitJobsPerUser"),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.usefixtures("enforcing")
def test_a_limit_of_an_account_is_waited_out(
    node: Any, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """The job says so, is submitted once there is room, and has used up no attempt."""
    monkeypatch.setattr("aiida_byoc.calculations.submitting._FIRST_SECONDS", 0.5)
    whose, name = LIMITS[limit]
    modify = ("sacctmgr", "--immediate", "modify", *whose.split())
    run(*modify, f"{name}=1")
    try:
        options = ("--account=proj42", "--qos=swift", "--output=/dev/null", "--wrap=sleep 600")
        other = run("sbatch", "--parsable", *options).strip()
        placed = {"account": "proj42", "qos": "swift"}
        job = Underway(node, submission := node.accept("true", placed=placed))

        waiting = job.until_state("queued")

        assert f"({limit})" in waiting["reason"]
        run("scancel", other)
        chain = job.finish(120)
        assert chain.is_finished_ok, chain.exit_message
        assert {each["attempt"] for each in node.events(submission)} == {1}
    finally:
        run(*modify, f"{name}=-1")
