"""The role of a node: all that its agent MUST do; the kit plays the adapter."""

from __future__ import annotations

from collections.abc import Iterator

from aiida_byoc.contracts.conformance.musts import Finding, Musts, hold
from aiida_byoc.contracts.conformance.node_commands import COMMANDS
from aiida_byoc.contracts.conformance.node_events import EVENTS
from aiida_byoc.contracts.conformance.node_scene import NodeScene, NodeTestSettings
from aiida_byoc.contracts.conformance.played_adapter import PlayedAdapter
from aiida_byoc.contracts.delivery import Heartbeat
from aiida_byoc.contracts.validation import validated

__all__ = ["REQUESTS", "try_node"]

REQUESTS: Musts[NodeScene] = Musts()
must = REQUESTS.must


@must("heartbeat.contract", "node-heartbeat.md#required-and-optional-fields")
def heartbeat(scene: NodeScene) -> str:
    """The node sends heartbeats that fit and hold no name of a tenant or a job."""
    beats = scene.until(lambda: scene.adapter.asked("/heartbeat"), "a heartbeat")
    for beat in beats:
        validated(Heartbeat, beat.json)
        hold(f'"{scene.tenant_id}"'.encode() not in beat.content, "a heartbeat names a tenant")
        hold(
            b"kit-" not in beat.content.replace(scene.settings.node_id.encode(), b""),
            "a heartbeat names a job",
        )
    return f"{len(beats)} heartbeats"


@must("auth.bearer", "command-delivery.md#tenant-and-auth-boundary")
def bearer(scene: NodeScene) -> str:
    """Every request carries a bearer token, and keeps to the node's own path."""
    requests = [
        each
        for each in list(scene.adapter.requests)
        if not each.path.endswith("/token") and each.path != "/livez"
    ]
    for each in requests:
        said = {name.lower(): value for name, value in each.headers.items()}.get(
            "authorization", ""
        )
        hold(said.startswith("Bearer "), f"{each.method} {each.path} has no bearer token")
        own = f"/v1/nodes/{scene.settings.node_id}/"
        hold(each.path.startswith(own), f"{each.path} is not below {own}")
    return f"{len(requests)} requests"


def try_node(settings: NodeTestSettings, adapter: PlayedAdapter | None = None) -> Iterator[Finding]:
    """Try all MUSTs on the node that connects.

    Args:
        adapter: one that the node knows already; by default the kit listens where the settings say.
    """
    host, _, port = settings.listen.rpartition(":")
    played = adapter or PlayedAdapter((host, int(port)))
    try:
        scene = NodeScene(settings, played)
        for musts in (COMMANDS, EVENTS, REQUESTS):
            yield from musts.try_all(scene)
    finally:
        if adapter is None:
            played.stop()
