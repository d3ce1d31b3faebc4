"""The reader's process, as the agent has it: started, asked one thing at a time, killed when it does not answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from aiida_byoc.agent.backoff import Backoff

__all__ = ["Reader", "ReaderUnavailable"]

_LOGGER = logging.getLogger(__name__)
_START_SECONDS = 60.0
"""AiiDA is up by then also on a busy machine."""
_SOUND_SECONDS = 30.0


class ReaderUnavailable(Exception):
    """The reader is starting, has died, or did not answer in time; asking again later is right."""


class Reader:
    """One process that answers `aiida_byoc.logs.reading`'s questions.

    Args:
        command: starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff(first=0.2, most=10.0)
        self._started_at, self._start_from = 0.0, 0.0
        self._is_ready, self._heard = False, b""

    def keep(self) -> None:
        """Start it unless it runs; soon, not at once, when it has just died."""
        process, now = self._process, time.monotonic()
        if process is not None:
            if process.poll() is None:
                return
            if now - self._started_at > _SOUND_SECONDS:
                self._backoff.succeeded()
            self._start_from = now + self._backoff.failed()
            _LOGGER.warning("Reader ended event=reader_ended status=%s", process.returncode)
            self._forget(process)
        if now >= self._start_from:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(self._command, **pipes)  # type: ignore[call-overload]
            self._started_at, self._is_ready, self._heard = now, False, b""

    def ask(self, question: dict[str, Any], *, until: float) -> dict[str, Any]:
        """Ask, and wait for the answer until then (monotonic, seconds).

        Raises:
            ReaderUnavailable: there is no answer; a reader that had the question is killed.
        """
        self.keep()
        process = self._process
        if process is None or process.stdin is None:
            raise ReaderUnavailable("the reader is not running")
        if not self._is_ready:
            self._await_start(process, until)
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(process, until))
        except TimeoutError as error:
            self.kill()
            raise ReaderUnavailable("the reader did not answer in time") from error
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            raise ReaderUnavailable(f"the reader has died: {error}") from error
        return answer

    def kill(self) -> None:
        """End it; `keep` starts another."""
        if self._process is not None:
            self._process.kill()

    def _await_start(self, process: subprocess.Popen[bytes], until: float) -> None:
        try:
            self._line(process, until)
        except TimeoutError as error:
            if time.monotonic() - self._started_at > _START_SECONDS:
                self.kill()
            raise ReaderUnavailable("the reader is starting") from error
        except EOFError as error:
            raise ReaderUnavailable("the reader has died") from error
        self._is_ready = True

    def _line(self, process: subprocess.Popen[bytes], until: float) -> bytes:
        assert process.stdout is not None  # noqa: S101  (it was started with a pipe)
        waiting = select.poll()
        waiting.register(process.stdout, select.POLLIN)
        while b"\n" not in self._heard:
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError
            heard = os.read(process.stdout.fileno(), 1 << 16)
            if not heard:
                raise EOFError("it closed its output")
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what could not be written to the dead
                    pipe.close()
        self._process = None
