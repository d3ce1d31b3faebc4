"""The receipt of a job: what ran, where, from what and to what, signed by the node.

`docs/contracts/provenance-receipt.md`.

`statement` is what it says, `envelope` how that is signed, `verification` how anybody checks it. Run as a program:
`python -m aiida_byoc.contracts.receipt verify receipt.json --key node.jwk`.
"""

from __future__ import annotations

from aiida_byoc.contracts.receipt.envelope import Envelope, EnvelopeSignature
from aiida_byoc.contracts.receipt.statement import (
    Calculation,
    JobRun,
    JobRunInput,
    SlurmRun,
    Statement,
    Subject,
)

__all__ = [
    "Calculation",
    "Envelope",
    "EnvelopeSignature",
    "JobRun",
    "JobRunInput",
    "SlurmRun",
    "Statement",
    "Subject",
]
