"""The reader's process: one question a line on stdin, one answer a line on stdout, until the agent is gone.

A question is `{"attempt", "stream", "task", "offset", "limit"}`, its answer `{"content", "offset", "size",
"is_closed"}`, with the content in base64, or `{"error"}`. The first line says that questions may come. Whoever asks
kills this process when an answer takes too long: a cluster that hangs must not be waited for.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import select
import sys
from typing import Any

import sqlalchemy.exc
from aiida.manage import get_manager

from aiida_byoc.logs.source import Source
from aiida_byoc.storage import crash_only

__all__ = ["READY", "read_forever"]

READY = {"ready": True}
_LOGGER = logging.getLogger(__name__)
_IDLE_SECONDS = 30.0


def read_forever() -> None:
    """Answer until stdin is closed."""
    crash_only.declare("reader")
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever else writes to stdout must not be taken for an answer
        source = Source(get_manager().get_profile_storage())
        _say(answers, READY)
        _LOGGER.info("Reader started event=reader_started pid=%s", os.getpid())
        while True:
            while not select.select([sys.stdin], [], [], _IDLE_SECONDS)[0]:
                source.close_idle()
            question = sys.stdin.readline()
            if not question:
                return
            _say(answers, _answer(source, json.loads(question)))


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _answer(source: Source, question: dict[str, Any]) -> dict[str, Any]:
    try:
        part = source.read(
            question["attempt"],
            question["stream"],
            task=question.get("task"),
            offset=question["offset"],
            limit=question["limit"],
        )
    except sqlalchemy.exc.OperationalError:
        raise  # the database is gone or cannot: crash, be restarted, start anew
    except Exception as error:  # whatever the transport raises
        _LOGGER.warning(
            "Log not read event=log_not_read pk=%s: %s",
            question["attempt"],
            error or type(error).__name__,
        )
        return {"error": str(error) or type(error).__name__}
    return {
        "content": base64.b64encode(part.content).decode(),
        "offset": part.offset,
        "size": part.size,
        "is_closed": part.is_closed,
    }
