"""The product's functions keep every MUST of a receiver, and the kit finds each that a broken copy of them breaks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiida_byoc.contracts.conformance.musts import Finding, table
from aiida_byoc.contracts.conformance.receiver import try_receiver
from aiida_byoc.contracts.conformance.receiver_scene import ReceiverSettings
from tests.convex.conftest import Deployment, Tenant
from tests.service.proxy import Broken, Passing, changed

ROOT = Path(__file__).parents[2]
EPOCHS = {
    "order.the-first-epoch", "order.an-unknown-epoch", "order.an-accepted-epoch", "order.no-epoch-is-the-oldest",
    "order.a-former-epoch", "order.a-decision-taken-back",
}  # fmt: skip


@pytest.fixture
def settings(deployment: Deployment, tenant: Tenant, rival: Tenant) -> ReceiverSettings:
    """The tenant's node, and others for the stories about epochs."""
    names = [tenant.node_id, *(f"{tenant.node_id}-{number}" for number in range(7))]
    declared = [{"node_id": name, "tenant_ids": [tenant.tenant_id]} for name in names[1:]]
    deployment.call("mutation", "tenancy:seed", {"nodes": declared}, deployment.admin)
    tokens = [tenant.service(node_id=name).removeprefix("Bearer ") for name in names]
    return ReceiverSettings.model_validate(
        {
            "tenant_id": tenant.tenant_id,
            "nodes": [
                {"node_id": name, "service_token": token}
                for name, token in zip(names, tokens, strict=True)
            ],
            "admin_key": deployment.convex.admin_key,
            "user_token": tenant.user.removeprefix("Bearer "),
            "foreign_tenant_id": rival.tenant_id,
        }
    )


def broken(findings: list[Finding]) -> set[str]:
    return {each.must for each in findings if each.verdict == "broken"}


def test_the_functions_keep_every_must(deployment: Deployment, settings: ReceiverSettings) -> None:
    findings = list(try_receiver(deployment.convex.url, settings))

    assert {each.verdict for each in findings} == {"kept"}, table(findings)
    assert len(findings) > 20


def test_the_command_tries_a_product(
    deployment: Deployment, settings: ReceiverSettings, tmp_path: Path
) -> None:
    (tmp_path / "kit.json").write_text(settings.model_dump_json())
    command = [sys.executable, "-m", "aiida_byoc.contracts.conformance"]
    options = ["--receiver", deployment.convex.url, "--settings", str(tmp_path / "kit.json")]

    ended = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )

    told = ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].endswith("kept, 0 broken, 0 not tested"), told
    assert ended.returncode == 0


def test_what_is_not_given_is_not_tested(
    deployment: Deployment, settings: ReceiverSettings
) -> None:
    few = settings.model_copy(
        update={"nodes": settings.nodes[:1], "admin_key": None, "user_token": None}
    )

    findings = list(try_receiver(deployment.convex.url, few))

    assert broken(findings) == set()
    assert {each.must for each in findings if each.verdict == "not tested"} == EPOCHS | {
        "auth.user", "auth.job", "shown.newest",
    }  # fmt: skip


def said(old: bytes, new: bytes) -> Any:
    return {
        "answer": lambda _, answered: changed(answered, content=answered.content.replace(old, new))
    }


def forgets_what_is_missing(_: Passing, answered: Passing) -> Passing:
    body = json.loads(answered.content)
    if answered.path.endswith("/mutation") and body["status"] == "success":
        for one in body["value"].get("outcomes", []):
            one.pop("missing_from", None)
    return changed(answered, content=json.dumps(body).encode())


def is_poisoned_as_a_whole(_: Passing, answered: Passing) -> Passing:
    if b'"too_large"' not in answered.content:
        return answered
    return changed(answered, content=b'{"status": "error", "errorMessage": "Server Error"}')


def updates(asked: Passing) -> list[dict[str, Any]]:
    return json.loads(asked.content)["args"].get("updates", [])


def with_updates(asked: Passing, told: list[dict[str, Any]]) -> Passing:
    if not updates(asked):
        return asked
    call = json.loads(asked.content)
    return changed(asked, content=json.dumps({**call, "args": {"updates": told}}).encode())


def takes_more(asked: Passing) -> Passing:
    return with_updates(asked, updates(asked)[:100])


def takes_fewer(asked: Passing) -> Passing:
    return with_updates(asked, updates(asked)[:50]) if len(updates(asked)) == 100 else asked


def knows_no_epochs(asked: Passing) -> Passing:
    told = [
        {name: value for name, value in one.items() if name != "epoch"} for one in updates(asked)
    ]
    return asked if len(told) > 9 else with_updates(asked, told)


class LetsIn:
    """Takes another credential for the adapter's."""

    def __init__(self, token: str, shown: str | None) -> None:
        self._token, self._shown = token, shown

    def __call__(self, asked: Passing) -> Passing:
        if asked.headers.get("Authorization") != self._shown or not asked.path.endswith(
            "/mutation"
        ):
            return asked
        return changed(asked, headers={**asked.headers, "Authorization": f"Bearer {self._token}"})


MUTANTS: list[tuple[str, Any, set[str]]] = [
    ("applies-the-old", said(b'"superseded"', b'"applied"'),
     {"order.late", "order.a-gap", "order.two-gaps"} | EPOCHS - {"order.the-first-epoch", "order.an-unknown-epoch",
      "order.a-decision-taken-back"}),
    ("overwrites", said(b'"seq_conflict"', b'"applied"'), {"order.other-content"}),
    ("goes-on-after-an-end", said(b'"terminal"', b'"invalid"'), {"order.an-end", "order.an-accepted-epoch"}),
    ("forgets-what-is-missing", {"answer": forgets_what_is_missing},
     {"order.late", "order.a-gap", "order.two-gaps", "order.a-seq-that-no-number-can-hold",
      "order.an-accepted-epoch", "order.no-epoch-is-the-oldest", "order.a-former-epoch",
      "order.a-decision-taken-back"}),
    ("is-poisoned-as-a-whole", {"answer": is_poisoned_as_a_whole}, {"poison.alone"}),
    ("is-cured-by-time", said(b'"inconsistent"', b'"invalid"'),
     {"poison.alone", "poison.final", "order.another-submission"}),
    ("takes-more", {"ask": takes_more}, {"batch.size"}),
    ("takes-fewer", {"ask": takes_fewer}, {"batch.hundred"}),
    ("knows-no-epochs", {"ask": knows_no_epochs},
     {"order.an-unknown-epoch", "order.an-accepted-epoch", "order.no-epoch-is-the-oldest", "order.a-former-epoch",
      "order.a-decision-taken-back"}),
    ("lets-strangers-write", said(b'"forbidden"', b'"superseded"'),
     {"auth.node", "auth.tenant", "auth.job", "auth.user"}),
    ("shows-what-came-last", said(b'"state":"succeeded"', b'"state":"running"'), {"shown.newest"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mutant", "found"), [each[1:] for each in MUTANTS], ids=[each[0] for each in MUTANTS]
)
def test_a_broken_product_is_found_out(
    mutant, found, deployment: Deployment, settings: ReceiverSettings
) -> None:
    findings = tried(deployment, settings, mutant)

    assert broken(findings) == found, table(findings)


@pytest.mark.parametrize("who", ["anonymous", "user"])
def test_a_product_that_lets_anybody_in_is_found_out(
    who, deployment: Deployment, settings: ReceiverSettings
) -> None:
    shown = {"anonymous": None, "user": f"Bearer {settings.user_token}"}[who]
    lets_in = LetsIn(settings.nodes[0].service_token, shown)

    findings = tried(deployment, settings, {"ask": lets_in})

    assert broken(findings) == {f"auth.{who}"}, table(findings)


def tried(
    deployment: Deployment, settings: ReceiverSettings, mutant: dict[str, Any]
) -> list[Finding]:
    proxy = Broken(httpx.URL(deployment.convex.url).port or 0, **mutant)
    try:
        return list(try_receiver(proxy.url, settings))
    finally:
        proxy.stop()
