"""A worker's watch over an attempt, without Slurm."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import plumpy
import pytest
from aiida.engine.utils import InterruptableFuture

from aiida_byoc.calculations.listening import Sight
from aiida_byoc.calculations.waiting import _Watch


def test_a_kill_that_comes_with_slurms_answer_is_no_doubt() -> None:
    """AiiDA then has an error of its own in place of the kill: the cluster was asked, and has answered."""
    extras = SimpleNamespace(all={})
    process: Any = SimpleNamespace(
        node=SimpleNamespace(base=SimpleNamespace(extras=extras), get_job_id=lambda: "1")
    )

    watch = _Watch(process, None)

    async def go() -> None:
        loop, cancellable = asyncio.get_running_loop(), InterruptableFuture()

        async def sight(*_: Any) -> Sight:
            kill = plumpy.process_states.KillInterruption("by an operator")
            loop.call_soon(cancellable.interrupt, kill)
            return Sight(asked=True, info=None)

        cluster: Any = SimpleNamespace(sight=sight)
        post: Any = SimpleNamespace(progress=None)
        await asyncio.wait_for(watch._watch(cluster, post, cancellable), 30)

    with pytest.raises(plumpy.process_states.KillInterruption, match="by an operator"):
        asyncio.run(go())
    assert watch._doubt is None
