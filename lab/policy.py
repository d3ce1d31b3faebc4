"""What the owner of a lab's node allows: its `policy.toml`."""

from __future__ import annotations

from collections.abc import Sequence

from lab.image import Image

__all__ = ["MISSING_DIGEST", "QUEUE", "owners_policy"]

QUEUE = "main"

# Ceilings of a small machine. The second digest is approved but in no store: what a job of it shows is
# how a missing image is told.
POLICY = """\
tenants = [{tenants}]
runtime = "bubblewrap"

[ceilings]
cpu = 4
memory_mib = 4096
walltime_seconds = 3600
gpus = 2
nodes = 2
scratch_mib = 1024
attempts = 3

[queues.{queue}]
partition = "main"

[queues.high]
partition = "high"

[workchains."core.arithmetic.multiply_add"]
codes = ["bash@lab"]
defaults = {{ code = "bash@lab" }}

[workchains."core.arithmetic.multiply_add".inputs]
type = "object"
additionalProperties = false
required = ["x", "y", "z"]
properties.x = {{ type = "integer", minimum = -1000, maximum = 1000 }}
properties.y = {{ type = "integer", minimum = -1000, maximum = 1000 }}
properties.z = {{ type = "integer", minimum = -1000, maximum = 1000 }}

[workchains."lab.shell"]
codes = ["bash@lab"]
defaults = {{ code = "bash@lab" }}
options = ["job.metadata.options"]

[workchains."lab.shell".inputs]
type = "object"
additionalProperties = false
required = ["script", "greeting"]
properties.greeting = {{ type = "string", maxLength = 100 }}
properties.script = {{ type = "object", required = ["filename", "text"] }}

[images."{repository}"]
digests = ["{digest}", "{missing}"]
tags = {{ "{tag}" = "{digest}" }}
"""
MISSING_DIGEST = "sha256:" + "0" * 64


def owners_policy(tenants: Sequence[str], image: Image) -> str:
    """The policy of a node that serves these tenants and has this image."""
    repository, _, tag = image.ref.rpartition(":")
    return POLICY.format(
        tenants=", ".join(f'"{tenant}"' for tenant in tenants),
        queue=QUEUE,
        repository=repository,
        tag=tag,
        digest=image.digest,
        missing=MISSING_DIGEST,
    )
