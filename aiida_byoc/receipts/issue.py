"""A job's receipt, signed with the node's key: for the agent, which hands it over, and for `verdi`."""

from __future__ import annotations

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.receipt.envelope import MAX_RECEIPT_BYTES, Envelope
from aiida_byoc.contracts.receipt.verification import signed
from aiida_byoc.receipts.assembly import statement
from aiida_byoc.receipts.facts import read

__all__ = ["issue", "issue_for_wire"]


def issue(
    connection: psycopg.Connection, key: Ed25519PrivateKey, tenant_id: str, job_id: str
) -> Envelope:
    """The receipt of an ended job. Nothing is stored: the same facts under the same key are the same bytes.

    Raises:
        ProblemError: `not-found`, `job-not-ended` or `receipt-unavailable`.
    """
    return signed(statement(read(connection, tenant_id, job_id)), key)


def issue_for_wire(
    connection: psycopg.Connection, key: Ed25519PrivateKey, tenant_id: str, job_id: str
) -> Envelope:
    """The same, if it is short enough for an adapter."""
    receipt = issue(connection, key, tenant_id, job_id)
    if len(receipt.content) > MAX_RECEIPT_BYTES:
        raise ProblemError(
            "receipt-unavailable",
            f"The receipt has more than {MAX_RECEIPT_BYTES // 1024} KiB; the node's operator can write it to a file"
            " (`verdi data byoc jobs receipt`).",
        )
    return receipt
