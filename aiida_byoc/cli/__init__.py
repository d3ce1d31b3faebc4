"""`verdi data byoc …`: what an operator does on the management node.

Commands import late, so that `verdi` stays fast.
"""

from __future__ import annotations

import click

from aiida_byoc.cli.common import LateGroup

__all__ = ["byoc"]


@click.group(
    "byoc",
    cls=LateGroup,
    late={
        "init": "aiida_byoc.cli.init:init",
        "doctor": "aiida_byoc.cli.doctor:doctor",
        "status": "aiida_byoc.cli.status:status",
        "agent": "aiida_byoc.cli.agent:agent",
        "jobs": "aiida_byoc.cli.jobs:jobs",
        "events": "aiida_byoc.cli.events:events",
        "images": "aiida_byoc.cli.images:images",
        "node": "aiida_byoc.cli.node:node",
        "policy": "aiida_byoc.cli.policy:policy",
    },
)
def byoc() -> None:
    """Bring-your-own compute: this machine as a management node."""
