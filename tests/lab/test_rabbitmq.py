"""A real RabbitMQ server, private to its lab."""

from __future__ import annotations

import socket

import pytest

from lab import rabbitmq
from lab.paths import LabPaths
from lab.process import sweep
from lab.proctable import belonging

pytestmark = pytest.mark.skipif(
    not rabbitmq.PROGRAM.exists(), reason="installed only for BYOC_LAB_BROKER=core.rabbitmq"
)


def test_it_comes_back_at_the_same_address_and_leaves_nothing(paths: LabPaths) -> None:
    """It listens on loopback alone, and the sweep finds all that Erlang started."""
    first = rabbitmq.start(paths)
    rabbitmq.stop(paths)
    second = rabbitmq.start(paths)

    assert (first.port, first.password) == (second.port, second.password)
    assert {process.command for process in belonging(paths).values()} >= {"beam.smp", "epmd"}
    for port in paths.ports(rabbitmq.NAME, 3):
        with socket.socket() as elsewhere:
            elsewhere.bind(("127.0.0.2", port))
    sweep(paths)
    assert belonging(paths) == {}


def test_no_consumer_is_timed_out(paths: LabPaths) -> None:
    """A worker holds its task until the process has ended, however long that takes."""
    rabbitmq.start(paths)

    assert rabbitmq.control(paths, "environment").count("{consumer_timeout,undefined}") == 1
