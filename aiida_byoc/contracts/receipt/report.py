"""One check of everything about a receipt, and what a person is told of it; for both command lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.enrolment import PublicKey
from aiida_byoc.contracts.receipt.statement import Statement
from aiida_byoc.contracts.receipt.verification import (
    ReceiptError,
    changed_outputs,
    read_envelope,
    verified,
)

__all__ = ["check", "told"]


def check(
    file: Path, keys: Sequence[PublicKey], *, outputs: Path | None = None, job_id: str | None = None
) -> Statement:
    """What the receipt in that file says, if all that was asked for holds.

    Raises:
        ReceiptError: something does not hold; the sentence names the file.
    """
    try:
        statement = verified(read_envelope(file.read_bytes()), keys)
    except OSError as error:
        raise ReceiptError(f"{file} cannot be read: {error.strerror}") from error
    except ReceiptError as error:
        raise ReceiptError(f"{file} {error}") from error
    run = statement.predicate
    if job_id is not None and run.job_id != job_id:
        raise ReceiptError(f"{file} is the receipt of another job, {run.job_id}")
    if outputs is not None:
        changed = list(changed_outputs(statement, outputs))
        if changed:
            raise ReceiptError("; ".join(changed))
    return statement


def told(statement: Statement, *, outputs: Path | None = None) -> Iterator[str]:
    """What is known by a receipt that holds, line by line."""
    run = statement.predicate
    yield f"The node {run.node_id} signed this receipt, and nobody changed it."
    yield f"job        {run.tenant_id}/{run.workspace_id}/{run.job_id} (submission {run.submission_id})"
    yield f"{run.state:<10} {utc_now_text(run.ended_at)}, accepted {utc_now_text(run.accepted_at)}"
    if run.execution_id:
        yield f"AiiDA      {run.execution_id}"
    if run.image:
        yield f"image      {run.image.reference} as {run.image.digest}"
    for each in run.calculations:
        slurm = each.scheduler
        where = f"Slurm job {slurm.job_id} on {slurm.node_list or '?'}" if slurm else "not in Slurm"
        yield f"attempt    {each.attempt or '-'}: {where}, script {each.script or '-'}"
    for name, digest in statement.outputs.items():
        yield f"output     {name} {digest}"
    if outputs is not None:
        yield f"The {len(statement.outputs)} outputs are in {outputs} as the job left them."
