"""A tenant's quota, end to end: refused with when to come again, the key stays good, and nobody else feels it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from lab.paths import LabPaths


@contextlib.contextmanager
def one_a_minute(paths: LabPaths, tenant_id: str) -> Iterator[None]:
    """The owner's word, which counts from the next command on."""
    policy = paths.root / "policy.toml"
    before = policy.read_text()
    policy.write_text(f"{before}\n[quotas.tenants.{tenant_id}]\nsubmissions_per_minute = 1\n")
    try:
        yield
    finally:
        policy.write_text(before)


def test_who_submits_too_often_hears_when_to_come_again(
    acme: Any, globex: Any, rows: Any, lab_paths: LabPaths
) -> None:
    command, key = acme.command("true"), str(uuid.uuid4())

    with one_a_minute(lab_paths, acme.tenant["tenant_id"]):
        acme.submit(acme.command("true"))  # now or within the last minute one was accepted
        before = rows()
        refused = acme.submit(command, key)
        assert rows() == before
        assert globex.submit(globex.command("true")).status_code == 202
    accepted = acme.submit(command, key)

    problem = refused.json()
    assert (refused.status_code, problem["type"].rpartition("/")[2], problem["retry"]) == (
        429,
        "quota-exceeded",
        True,
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert accepted.status_code == 202, accepted.text
    assert "Idempotency-Replayed" not in accepted.headers
    assert acme.wait(command["job_id"])["state"] == "succeeded"
