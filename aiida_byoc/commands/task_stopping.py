"""Carrying out cancels of single tasks: arrays under way are told in their directories.

The intent is in the ledger, so it is tried until the newest attempt has been told; one that is made later has it in its
table. Tasks that run, or wait within an element that does, are for the element to end (`runtimes/in_job/array.py`). An
element that has not begun and has no other tasks is closed: its fence is taken, so that it never begins, and Slurm is
asked to forget it. Doing all this again changes nothing.
"""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida.orm import CalcJobNode, load_node

from aiida_byoc import crashpoints
from aiida_byoc.arrays.cancelled import Ranges, cancelled_tasks, merged
from aiida_byoc.arrays.table import FILENAME, opened
from aiida_byoc.events.hooks import transaction
from aiida_byoc.runtimes.in_job import ARRAY, CANCELLED, ELEMENTS, ENDED
from aiida_byoc.schedulers.options import CLIENT
from aiida_byoc.schedulers.slurm import slurm_id
from aiida_byoc.schedulers.witnesses import PATIENCE

__all__ = ["TaskStopper"]

_LOGGER = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 10.0
"""After a cluster that could not be told."""
_STEP_SECONDS = 5.0
_SCRIPT = f"{ARRAY}/cancel.sh"
_MOST_NAMED = 1000
"""Elements in one `scancel`: its list is one argument."""

_UNTOLD = """
SELECT DISTINCT job.submission_id::text, attempt.pk
FROM byoc.task_cancel AS asked JOIN byoc.job USING (submission_id), LATERAL (
    SELECT max(output_id) AS pk FROM db_dblink WHERE input_id = job.process_pk AND type = 'call_calc'
) AS attempt
WHERE job.state IN ('launched', 'queued', 'running', 'held') AND job.cancel_requested_at IS NULL
  AND attempt.pk IS NOT NULL AND asked.told IS DISTINCT FROM attempt.pk
"""
_TOLD = """
UPDATE byoc.task_cancel SET told = %(pk)s
WHERE submission_id = %(submission_id)s AND fingerprint = ANY(%(fingerprints)s)
"""

# Of an element that has begun, its own program looks at the file; the fence says which it is. By name and user `squeue`
# tells which are ours; with filters `scancel` takes all waiting elements for those that are named (measured, 22.05).
_TELL = """\
cd {directory} && mkdir -p {elements} && printf %s {tasks} > {file}.new && mv -f {file}.new {file} || exit 1
close() {{
  mkdir {elements}/$1 2> /dev/null && : > {elements}/$1/{ended}
  [ -e {elements}/$1/{ended} ] && [ ! -s {elements}/$1/{ended} ]
}}
for range in {ranges}; do
  for number in $(seq ${{range/-/ }}); do
    ! close $number || closed="$closed $number"
  done
done
[ -n "$closed" ] || exit 0
pending=$(timeout {patience} {client} squeue --noheader --me --name={name} --states=PENDING --array --format=%K) \\
  || exit 1
grep -xFf <(printf '%s\\n' $closed) <<< "$pending" | xargs -r -n {most} | tr ' ' , | while read -r left; do
  timeout {patience} {client} scancel "{job}_[$left]" || exit 1
done
exit ${{PIPESTATUS[3]}}
"""


class TaskStopper:
    """Tells arrays which of their tasks are not wanted any more; a failure only means that it tries again.

    Args:
        storage: AiiDA's.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._next_look = 0.0
        self._again: dict[int, float] = {}

    def step(self) -> None:
        """Tell whom it is due to tell; looks for such arrays at most once a second."""
        began = time.monotonic()
        if began < self._next_look:
            return
        self._next_look = began + _LOOK_SECONDS
        with transaction(self._storage) as connection:
            untold = connection.execute(_UNTOLD).fetchall()
        self._again = {pk: self._again.get(pk, 0.0) for _, pk in untold}
        for submission_id, pk in untold:
            if self._again[pk] <= began and time.monotonic() - began < _STEP_SECONDS:
                self._tell(submission_id, load_node(pk))

    def _tell(self, submission_id: str, attempt: CalcJobNode) -> None:
        """Nothing before Slurm has the attempt: until then its directory may be made anew."""
        job = attempt.get_job_id()
        if job is None:
            return
        with transaction(self._storage) as connection:
            tasks = cancelled_tasks(connection, submission_id)
            rows = connection.execute(
                "SELECT fingerprint FROM byoc.task_cancel WHERE submission_id = %s",
                (submission_id,),
            ).fetchall()
        script = f"{attempt.get_remote_workdir()}/{_SCRIPT}"
        try:
            with (
                attempt.get_authinfo().get_transport() as transport,
                tempfile.NamedTemporaryFile() as file,
            ):
                # Thousands of ranges are more than one argument of a command may have (execve(2), E2BIG).
                file.write(_told(attempt, job, tasks).encode())
                file.flush()
                transport.putfile(file.name, script)
                status, _, said = transport.exec_command_wait(f"bash {shlex.quote(script)}")
        except Exception as error:  # whatever the transport raises
            status, said = -1, repr(error)
        if status != 0:
            self._again[attempt.pk] = time.monotonic() + _PAUSE_SECONDS
            _LOGGER.warning(
                "Array not told event=tasks_not_cancelled submission=%s: %s",
                submission_id,
                said.strip()[:300],
            )
            return
        crashpoints.reached("tasks.told")
        told = {
            "pk": attempt.pk,
            "submission_id": submission_id,
            "fingerprints": [fingerprint for (fingerprint,) in rows],
        }
        with transaction(self._storage) as connection:
            connection.execute(_TOLD, told)
        _LOGGER.info(
            "Array told event=tasks_cancelled submission=%s tasks=%d",
            submission_id,
            sum(last - first + 1 for first, last in tasks),
        )


def _told(attempt: CalcJobNode, job: str, tasks: Ranges) -> str:
    """The script that tells the array."""
    elements = merged((each, each) for each in _without_work(attempt, tasks))
    return _TELL.format(
        directory=shlex.quote(attempt.get_remote_workdir()),
        elements=ELEMENTS,
        tasks=shlex.quote(json.dumps(tasks)),
        file=CANCELLED,
        ended=ENDED,
        ranges=" ".join(f"{first}-{last}" for first, last in elements),
        patience=PATIENCE,
        client=CLIENT,
        name=shlex.quote(job.partition("/")[2]),
        job=slurm_id(job),
        most=_MOST_NAMED,
    )


def _without_work(attempt: CalcJobNode, tasks: Ranges) -> Iterator[int]:
    """The elements all of whose tasks are not wanted; they were dealt out in the order of the table."""
    pack = attempt.inputs.container["array"]["pack"]
    unwanted = {number for first, last in tasks for number in range(first, last + 1)}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, FILENAME)
        path.write_bytes(attempt.inputs.tasks.get_content(mode="rb"))
        with opened(path) as table:
            numbers = [number for number, _, _ in table.to_run()]
    for element, first in enumerate(range(0, len(numbers), pack)):
        if unwanted.issuperset(numbers[first : first + pack]):
            yield element
