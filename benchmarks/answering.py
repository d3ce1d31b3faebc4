"""The adapter's own route for jobs without a node behind it: it admits, reads, validates, and answers.

`python -m benchmarks.answering PORT`, with the adapter's settings: what acceptance costs at the least.
"""

from __future__ import annotations

import logging
import secrets
import sys
from datetime import UTC, datetime
from uuid import uuid4

import uvicorn
from fastapi import FastAPI

from adapter.auth import ClientGuard
from adapter.channel import Channel
from adapter.clients import Issuers, OpaqueTokens
from adapter.problems import install_problems
from adapter.registry import Registry
from adapter.routes.jobs import jobs_router
from adapter.settings import load_settings
from aiida_byoc.contracts import Command, JobAcceptance, Verdict


class _Yes(Channel):
    """Accepts everything, at once, and keeps nothing."""

    async def submit(self, node_id: str, command: Command) -> Verdict:
        acceptance = JobAcceptance(
            job_id=command.job_id,
            submission_id=str(uuid4()),
            node_id=node_id,
            accepted_at=datetime.now(UTC),
            trace_id=secrets.token_hex(16),
        )
        return Verdict(outcome="accepted", acceptance=acceptance)


def main(port: int) -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.WARNING)
    settings = load_settings()
    registry = Registry(settings.nodes, None, seconds=settings.registry_seconds)
    opaque = OpaqueTokens(None, seconds=settings.registry_seconds)
    guard = ClientGuard(Issuers(settings), opaque, registry)
    app = FastAPI()
    install_problems(app)
    app.include_router(jobs_router(guard, _Yes(verdict_timeout=1, redelivery=1, presence=1)))
    uvicorn.run(
        app, host="127.0.0.1", port=port, access_log=False, log_config=None, timeout_keep_alive=75
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
