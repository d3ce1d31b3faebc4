"""`verdi data byoc node …`: this node as such, and what the machines of its cluster need."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import LateGroup

__all__ = ["node"]


@click.group(
    cls=LateGroup,
    late={
        "enroll": "aiida_byoc.cli.enroll:enroll",
        "rotate-key": "aiida_byoc.cli.identity:rotate_key",
        "show": "aiida_byoc.cli.identity:show_node",
        "drain": "aiida_byoc.cli.drain:drain",
        "resume": "aiida_byoc.cli.drain:resume",
        "epilog": "aiida_byoc.cli.cluster:epilog",
        "runtimes": "aiida_byoc.cli.cluster:runtimes",
    },
)
def node() -> None:
    """This node: its identity, whether it takes jobs, and what its cluster's machines need."""
