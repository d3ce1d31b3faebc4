"""Try an implementation and print which MUSTs it keeps: `python -m aiida_byoc.contracts.conformance --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from aiida_byoc.contracts.conformance.adapter import try_adapter
from aiida_byoc.contracts.conformance.adapter_scene import AdapterSettings
from aiida_byoc.contracts.conformance.musts import Finding, Unusable, table
from aiida_byoc.contracts.conformance.node import try_node
from aiida_byoc.contracts.conformance.node_scene import NodeTestSettings
from aiida_byoc.contracts.conformance.receiver import try_receiver
from aiida_byoc.contracts.conformance.receiver_scene import ReceiverSettings
from aiida_byoc.contracts.validation import field_errors

BROKEN, UNUSABLE = 1, 2


def main(argv: list[str]) -> int:
    """0 if no MUST is broken, 1 if one is, 2 if nothing could be tried."""
    parser = argparse.ArgumentParser(
        prog="python -m aiida_byoc.contracts.conformance",
        description="Try an implementation of the contracts from outside; docs/conformance.md has what it needs.",
    )
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument(
        "--adapter",
        metavar="URL",
        help="play client, node and product for the adapter at this address",
    )
    role.add_argument(
        "--receiver",
        metavar="URL",
        help="play the adapter for the product (Convex) at this address",
    )
    role.add_argument(
        "--node", action="store_true", help="play the adapter for a node that connects to the kit"
    )
    parser.add_argument(
        "--settings", type=Path, required=True, metavar="FILE", help="names and tokens (JSON)"
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    options = parser.parse_args(argv)
    try:
        findings = list(_trial(options)())
    except ValidationError as error:
        wrong = "; ".join(f"{each.field}: {each.message}" for each in field_errors(error))
        return _unusable(f"{options.settings}: {wrong}")
    except (OSError, Unusable) as error:
        return _unusable(str(error))
    if options.json:
        sys.stdout.write(json.dumps([each.as_json() for each in findings], indent=2) + "\n")
    else:
        sys.stdout.write(f"{table(findings)}\n\n{_summary(findings)}\n")
    return BROKEN if any(each.verdict == "broken" for each in findings) else 0


def _trial(options: argparse.Namespace) -> Callable[[], Iterator[Finding]]:
    if options.adapter:
        adapter = AdapterSettings.load(options.settings)
        return lambda: try_adapter(options.adapter, adapter)
    if options.receiver:
        receiver = ReceiverSettings.load(options.settings)
        return lambda: try_receiver(options.receiver, receiver)
    node = NodeTestSettings.load(options.settings)
    sys.stderr.write(f"waiting for the node {node.node_id} at http://{node.listen}\n")
    return lambda: try_node(node)


def _summary(findings: list[Finding]) -> str:
    counts = Counter(each.verdict for each in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("kept", "broken", "not tested"))


def _unusable(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return UNUSABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
