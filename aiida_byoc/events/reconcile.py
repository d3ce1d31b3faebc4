"""The sweep: ends that no hook could see (a checkpoint that cannot be loaded, a repair, an operator's edit)."""

from __future__ import annotations

import logging
from typing import Any

from aiida.orm import load_node
from plumpy import ProcessState

from aiida_byoc import crashpoints
from aiida_byoc.events import outbox
from aiida_byoc.events.hooks import transaction
from aiida_byoc.workflows.outcome import outcome

__all__ = ["reconcile"]

_LOGGER = logging.getLogger(__name__)

_ENDED_UNTOLD = """
SELECT job.submission_id::text, job.process_pk
FROM byoc.job JOIN db_dbnode AS node ON node.id = job.process_pk
WHERE job.state IN ('launched', 'queued', 'running', 'held')
  AND node.attributes ->> 'process_state' IN ('finished', 'excepted', 'killed')
ORDER BY job.accepted_at LIMIT 20
"""
"""The hook commits state and event together: a terminal node beside a non-terminal job was not told by a hook."""


def reconcile(storage: Any) -> int:
    """Tell what is untold; return how many events that took (0 when the hooks do their work)."""
    with transaction(storage) as connection:
        untold = connection.execute(_ENDED_UNTOLD).fetchall()
    for submission_id, pk in untold:
        node: Any = load_node(pk)
        report = outcome(node, ProcessState(node.process_state.value))
        if report is None:  # its Slurm job may still be there; the stopper tells
            continue
        crashpoints.reached("sweep.found")
        with transaction(storage) as connection:
            outbox.append(connection, submission_id, report)
        _LOGGER.warning("the end of submission %s was told by the sweep", submission_id)
    return len(untold)
