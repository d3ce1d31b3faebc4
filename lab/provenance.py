"""`python -m lab.provenance PROFILE UUID NAME`: print an output file of a job as AiiDA's provenance holds it."""

from __future__ import annotations

import sys

from aiida import load_profile
from aiida.orm import load_node

__all__ = ["main"]


def main(profile: str, execution_id: str, name: str) -> None:
    """Write the file to standard output."""
    load_profile(profile)
    outputs = load_node(execution_id).outputs.outputs
    sys.stdout.buffer.write(outputs.base.repository.get_object_content(name, mode="rb"))


if __name__ == "__main__":
    main(*sys.argv[1:])
