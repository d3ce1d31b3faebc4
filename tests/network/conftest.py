"""Two machines: product, adapters and nginx on the one, the whole node behind a firewall on the other.

The node was declared to nobody: it enrolled itself, and its policy wants the product's signature under every command.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from lab import adapter, front, image, stack
from lab.networks import PRODUCT, Networks, networks
from lab.paths import LabPaths
from tests.labs import scratch_lab
from tests.network.product import Product

LACKING = [name for name in ("ip", "iptables", "nginx") if not shutil.which(name)]


@pytest.fixture(scope="session")
def wire() -> Iterator[Networks]:
    """The two networks; the node's is closed to whatever comes from outside."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces with a firewall need root")
    assert not LACKING, f"not installed: {', '.join(LACKING)}"
    with networks() as wire:
        wire.close_to_the_outside()
        yield wire


@pytest.fixture(scope="session")
def paths(wire: Networks) -> Iterator[LabPaths]:
    """Where both keep their files."""
    with scratch_lab("network") as paths:
        yield paths
        with wire.within(wire.node):
            stack.down(paths)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> front.Certificates:
    """Who vouches for the adapters' address."""
    return front.certificates(tmp_path_factory.mktemp("tls"), PRODUCT)


@pytest.fixture(scope="session")
def lab(paths: LabPaths, wire: Networks, authority: front.Certificates) -> dict[str, Any]:
    """What `lab.json` says of the running stack."""

    def via(part: str, url: str) -> str:
        if part != "adapter":
            return url
        adapter.spawn(paths, "adapter-2")
        replicas = [f"127.0.0.1:{paths.ports(name)[0]}" for name in ("adapter", "adapter-2")]
        return front.start(paths, PRODUCT, replicas, authority)

    image.build(paths)  # out of packages that the node's network cannot fetch
    with wire.within(wire.node):
        return stack.up(
            paths,
            via,
            at_the_product=lambda: wire.within(wire.product),
            enrols_with=["--ca-file", str(authority.authority)],
        )


@pytest.fixture(scope="session")
def product(lab: dict[str, Any], wire: Networks, authority: front.Certificates) -> Product:
    """The product's backend, on its machine."""
    return Product(lab=lab, wire=wire, trust=authority.trust())
