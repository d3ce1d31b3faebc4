"""The enrolment token is asked for on a terminal, which does not show it."""

from __future__ import annotations

import os
import pty
import select
import sys
import time

from aiida_byoc.contracts.enrolment import EnrolmentToken

CODE = "from aiida_byoc.cli.enroll import read_token; print('for', read_token().node_id)"
SECONDS = 30.0


def until(terminal: int, text: bytes, shown: bytes = b"") -> bytes:
    """Read what the terminal shows until the text is there."""
    deadline = time.monotonic() + SECONDS
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, f"{text!r} was not shown: {shown!r}"
        shown += os.read(terminal, 1024)
    return shown


def test_a_terminal_does_not_show_the_token() -> None:
    token = EnrolmentToken("n1", "S" * 43, "K" * 43)
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", CODE])  # noqa: S606
    try:
        shown = until(terminal, b"Enrolment token: ")
        os.write(terminal, f"{token}\n".encode())

        shown = until(terminal, b"for n1", shown)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)

    assert token.secret.encode() not in shown
