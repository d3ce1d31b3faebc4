"""The role of a product: what a Convex-like `applyProjections` MUST do; the kit plays the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from aiida_byoc.contracts.conformance.musts import Finding, Musts, NotTested, hold
from aiida_byoc.contracts.conformance.receiver_cases import CASES, Accept, play
from aiida_byoc.contracts.conformance.receiver_scene import ReceiverScene, ReceiverSettings, Served
from aiida_byoc.contracts.projection import MAX_PROJECTION_BATCH

__all__ = ["RECEIVER", "try_receiver"]

PAGE = "projection-update.md"
RECEIVER: Musts[ReceiverScene] = Musts()
must = RECEIVER.must

_SAYS = {
    "in order": ("idempotency-key", "What is newer is applied."),
    "repeated": ("idempotency-key", "The same epoch, seq and content are a duplicate."),
    "late": (
        "ordering-and-retry-rule",
        "What is older and was not seen is superseded: no error, and not lost.",
    ),
    "a gap": (
        "ordering-and-retry-rule",
        "A gap is asked for by its lowest seq, until it is closed.",
    ),
    "other content": (
        "idempotency-key",
        "The same epoch and seq with other content are a seq_conflict.",
    ),
    "two gaps": ("ordering-and-retry-rule", "Of several gaps the lowest is asked for."),
    "a seq that no number can hold": (
        "error-semantics",
        "A seq beyond 2^53 - 1 is invalid; the others are applied.",
    ),
    "an end": ("error-semantics", "After an end nothing else is applied: terminal."),
    "another submission": ("error-semantics", "Another submission of the job is inconsistent."),
    "the first epoch": (
        "ordering-and-retry-rule",
        "A node's first epoch is accepted on first use.",
    ),
    "an unknown epoch": (
        "ordering-and-retry-rule",
        "An epoch that nobody accepted fails the whole call.",
    ),
    "an accepted epoch": (
        "ordering-and-retry-rule",
        "In an accepted epoch a job goes on; what it lacks is asked for.",
    ),
    "no epoch is the oldest": (
        "required-and-optional-fields",
        "An update without an epoch is before all epochs.",
    ),
    "a former epoch": (
        "ordering-and-retry-rule",
        "An epoch may be put before those that are accepted.",
    ),
    "a decision taken back": (
        "ordering-and-retry-rule",
        "An epoch that is accepted again is the newest.",
    ),
}


def _story(case: str) -> None:
    def told(scene: ReceiverScene) -> str:
        epochs = any(
            isinstance(step, Accept) or any("epoch" in one for one in step.updates)
            for step in CASES[case]
        )
        node = scene.fresh() if epochs else scene.node
        return play(
            case,
            scene.base(node),
            lambda updates: scene.apply(updates, node.service_token),
            lambda step: scene.accept(node, step),
        )

    heading, told.__doc__ = _SAYS[case]
    must(f"order.{case.replace(' ', '-')}", f"{PAGE}#{heading}")(told)


for _case in CASES:
    _story(_case)


@must("batch.hundred", f"{PAGE}#producer-and-consumer")
def hundred(scene: ReceiverScene) -> str:
    """A call of 100 updates has an outcome for each."""
    told = scene.outcomes([scene.update() for _ in range(MAX_PROJECTION_BATCH)])
    hold(
        told == ["applied"] * MAX_PROJECTION_BATCH,
        f"{len(told)} outcomes, {told.count('applied')} applied",
    )
    return "100 applied"


@must("batch.size", f"{PAGE}#error-semantics")
def size(scene: ReceiverScene) -> str:
    """A call of no update or of more than 100 is invalid, and nothing of it is applied."""
    updates = [scene.update() for _ in range(MAX_PROJECTION_BATCH + 1)]
    for call in ([], updates):
        answer = scene.apply(call)
        code = answer.get("errorData", {}).get("code")
        hold(code == "invalid", f"{len(call)} updates: {code or answer['status']}, not invalid")
    told = scene.outcomes(updates[:1])
    hold(told == ["applied"], f"one of 101 updates was applied: {told[0]} now")
    return "0 and 101 refused"


@must("poison.alone", f"{PAGE}#error-semantics")
def alone(scene: ReceiverScene) -> str:
    """An update that is refused stops no other of its call."""
    bad = [
        ("invalid", scene.update(attempt=0)),
        ("invalid", scene.update(epoch="not hexadecimal")),
        ("invalid", {**scene.update(), "projection_id": f"{uuid4()}:7"}),
        ("too_large", scene.update(message="x" * 64 * 1024)),
        ("inconsistent", scene.update(state="queued")),
    ]
    expected = [word for code, _ in bad for word in (code, "applied")]
    told = scene.outcomes([update for _, one in bad for update in (one, scene.update())])
    hold(told == expected, f"{' '.join(told)}, not {' '.join(expected)}")
    return " ".join(told)


@must("poison.final", f"{PAGE}#error-semantics")
def final(scene: ReceiverScene) -> str:
    """What was rejected once is rejected again, and nothing of it is kept."""
    base = scene.base(scene.node)
    bad = scene.update(base=base, state="queued")
    told = [scene.outcomes([each])[0] for each in (bad, bad, scene.update(base=base))]
    hold(told == ["inconsistent", "inconsistent", "applied"], " ".join(told))
    return " ".join(told)


@must("auth.anonymous", f"{PAGE}#tenant-and-auth-boundary")
def anonymous(scene: ReceiverScene) -> str:
    """Without a credential nothing is applied."""
    return _kept_out(scene, "", {"unauthenticated"})


@must("auth.user", f"{PAGE}#tenant-and-auth-boundary")
def user(scene: ReceiverScene) -> str:
    """A user's token applies nothing."""
    if scene.settings.user_token is None:
        raise NotTested("give `user_token`: of a member of the tenant")
    return _kept_out(scene, scene.settings.user_token, {"forbidden"})


@must("auth.node", f"{PAGE}#tenant-and-auth-boundary")
def other_node(scene: ReceiverScene) -> str:
    """An update of another node than the token's is forbidden."""
    other = scene.base(Served(node_id=f"node-{uuid4().hex[:8]}", service_token=""))
    told = scene.outcomes([scene.update(base=other), scene.update()])
    hold(told == ["forbidden", "applied"], " ".join(told))
    return " ".join(told)


@must("auth.tenant", f"{PAGE}#tenant-and-auth-boundary")
def other_tenant(scene: ReceiverScene) -> str:
    """An update of a tenant that the node does not serve is forbidden, whether there is such a tenant or not."""
    tenants = [f"tenant-{uuid4().hex[:8]}"]
    tenants += [scene.settings.foreign_tenant_id] if scene.settings.foreign_tenant_id else []
    for tenant in tenants:
        told = scene.outcomes([scene.update(tenant_id=tenant), scene.update()])
        hold(told == ["forbidden", "applied"], " ".join(told))
    return f"{len(tenants)} tenants, forbidden"


@must("auth.job", f"{PAGE}#error-semantics")
def other_job(scene: ReceiverScene) -> str:
    """A job of another node of the same tenant is forbidden."""
    node, base = scene.fresh(), scene.base(scene.node)
    scene.outcomes([scene.update(base=base)])
    told = scene.outcomes([scene.update(2, base, node_id=node.node_id)], node.service_token)
    hold(told == ["forbidden"], told[0])
    return told[0]


@must("shown.newest", f"{PAGE}#purpose")
def newest(scene: ReceiverScene) -> str:
    """Users see the newest update, in whatever order they came."""
    base = scene.base(scene.node)
    scene.outcomes([scene.update(3, base, state="succeeded", execution_state="succeeded")])
    scene.outcomes([scene.update(2, base), scene.update(1, base)])
    shown = scene.shown(base["job_id"])
    hold(
        (shown["seq"], shown["state"]) == (3, "succeeded"),
        f"seq {shown['seq']:.0f}, {shown['state']} is shown",
    )
    return "seq 3, succeeded"


def _kept_out(scene: ReceiverScene, token: str, codes: set[str]) -> str:
    update = scene.update()
    answer = scene.apply([update], token)
    code = (answer.get("errorData") or {}).get("code") or answer.get("code")
    hold(answer.get("status") != "success", "the call succeeded")
    told = scene.outcomes([update])
    hold(told == ["applied"], f"the update was applied all the same: {told[0]} now")
    hold(code in codes | {"Unauthenticated", "InvalidAuthHeader"}, f"refused as {code}")
    return f"refused as {code}"


def try_receiver(url: str, settings: ReceiverSettings) -> Iterator[Finding]:
    """Try all MUSTs on the product at this address."""
    return RECEIVER.try_all(ReceiverScene(url, settings))
