"""Log lines as JSON objects: a sentence, a stable `event`, and the names of things; never tokens or bodies."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from aiida_byoc.contracts.base import utc_now_text

__all__ = ["configure"]

_FIELDS = (
    "event",
    "problem",
    "node_id",
    "tenant_id",
    "job_id",
    "submission_id",
    "trace_id",
    "request_id",
    "code",
    "count",
    "issuer",
    "key_id",
)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": utc_now_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = vars(record)
        line.update({name: facts[name] for name in _FIELDS if facts.get(name) is not None})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    """Send every logger's lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # httpx tells every request at INFO; what matters of them is logged here in our words.
    logging.getLogger("httpx").setLevel(logging.WARNING)
