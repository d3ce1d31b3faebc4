"""`verdi data byoc agent …`: the one process of the node."""

from __future__ import annotations

import logging
import sys

import click

from aiida_byoc.cli.common import node_settings, one_sentence, profile_storage

__all__ = ["agent"]


@click.group()
def agent() -> None:
    """The process that connects this node to the product."""


@agent.command("run")
@one_sentence
def run() -> None:
    """Run the agent in the foreground until it is told to stop (SIGTERM)."""
    from aiida_byoc.agent import supervisor

    profile, storage_config = profile_storage()
    _log_to_stderr()
    supervisor.run(node_settings(), storage_config, profile)


@agent.command("launch", hidden=True)
@one_sentence
def launch() -> None:
    """Launch accepted jobs; started and restarted by `agent run`."""
    from aiida_byoc.commands.launching import launch_forever

    profile_storage()
    _log_to_stderr()
    launch_forever(node_settings())


@agent.command("read", hidden=True)
@one_sentence
def read() -> None:
    """Read logs for the agent; started and restarted by `agent run`."""
    from aiida_byoc.logs.reading import read_forever

    profile_storage()
    _log_to_stderr()
    read_forever()


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("aiida_byoc")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
