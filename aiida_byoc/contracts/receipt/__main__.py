"""Check a receipt: `python -m aiida_byoc.contracts.receipt verify FILE --key JWK|--keys URL …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aiida_byoc.contracts.receipt.keys import TOKEN, keys_from
from aiida_byoc.contracts.receipt.report import check, told
from aiida_byoc.contracts.receipt.verification import ReceiptError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all holds, 1 if something does not, 2 if the question is wrong."""
    parser = argparse.ArgumentParser(prog="python -m aiida_byoc.contracts.receipt")
    verify = parser.add_subparsers(required=True).add_parser("verify", help="check a receipt")
    verify.add_argument("file", type=Path, help="the receipt")
    keys = verify.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key", help="the node's public key, a JWK: a file")
    keys.add_argument(
        "--keys", help=f"public keys of the node, a JWK Set: a file, or a URL (token in {TOKEN})"
    )
    verify.add_argument(
        "--outputs", type=Path, help="directory of the job's outputs, to be compared"
    )
    verify.add_argument("--job", help="the job that the receipt has to be of")
    asked = parser.parse_args(arguments)
    try:
        known = keys_from(asked.key or asked.keys)
        statement = check(asked.file, known, outputs=asked.outputs, job_id=asked.job)
    except ReceiptError as error:
        return _fails(str(error))
    sys.stdout.write("\n".join(told(statement, outputs=asked.outputs)) + "\n")
    return 0


def _fails(sentence: str) -> int:
    sys.stderr.write(f"Error: {sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
