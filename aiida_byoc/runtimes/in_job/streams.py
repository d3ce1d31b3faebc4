"""The container's stdout and stderr on their way into the job's: as they come, but never more than was agreed.

A container writes into pipes, so that a log of any size costs neither disk nor memory. At the limit a line says so; of
what follows only the end is kept, and written when the container is gone. Bytes are bytes: nothing is decoded.
"""

import contextlib
import fcntl
import os
import select
import threading

LAST_BYTES = 64 * 1024
"""How much of the end is kept of a stream that went beyond its limit."""

_END_BYTES = 4096
_BLOCK = 1 << 20
_SET_PIPE_SIZE = 1031
_DRAIN_SECONDS = 5.0


class Streams:
    """Two pipes, `out` and `err`, to be given to the container, and what carries their content away."""

    def __init__(self, most):
        self._pumps = [_Pump(target, most) for target in (1, 2)]
        self.out, self.err = (pump.inlet for pump in self._pumps)

    @property
    def last_of_err(self):
        """The end of what came on stderr."""
        return self._pumps[1].end

    def hand_over(self):
        """Begin, with the container's ends as the only ones. Not earlier: no process is made beside threads."""
        for pump in self._pumps:
            os.close(pump.inlet)
            pump.start()

    def finish(self):
        """Write what is left, once the container is gone. A process that outlived it keeps nobody waiting."""
        for pump in self._pumps:
            pump.finish()


class _Pump(threading.Thread):
    """Carries one stream to the descriptor `target`: its first `most` bytes, and its last."""

    def __init__(self, target, most):
        super().__init__(daemon=True)
        self._source, self.inlet = os.pipe()
        self._told, self._telling = os.pipe()
        with contextlib.suppress(OSError):  # for speed alone
            fcntl.fcntl(self.inlet, _SET_PIPE_SIZE, _BLOCK)
        self._target, self._most, self._room = target, most, most
        self._beyond, self._last, self.end = 0, b"", b""

    def run(self):
        waiting = select.poll()
        waiting.register(self._source, select.POLLIN)
        waiting.register(self._told, select.POLLIN)
        while self._told not in dict(waiting.poll()):
            block = os.read(self._source, _BLOCK)
            if not block:
                break
            self._take(block)
        else:  # somebody holds the other end still: what is in the pipe now is all that counts
            os.set_blocking(self._source, False)
            with contextlib.suppress(BlockingIOError):
                self._take(os.read(self._source, _BLOCK))
        if self._beyond:
            left_out = self._beyond - len(self._last)
            self._write(b"[byoc: %d bytes are left out here]\n%s" % (left_out, self._last))

    def finish(self):
        self.join(_DRAIN_SECONDS)
        os.write(self._telling, b".")
        self.join()

    def _take(self, block):
        self.end = (self.end + block[-_END_BYTES:])[-_END_BYTES:]
        now, later = block[: self._room], block[self._room :]
        self._write(now)
        self._room -= len(now)
        if later and not self._beyond:
            full = b"\n[byoc: these were %d bytes, as many as a log may have; of the rest the end is kept]\n"
            self._write(full % self._most)
        self._beyond += len(later)
        self._last = (self._last + later[-LAST_BYTES:])[-LAST_BYTES:]

    def _write(self, block):
        # A full disk must not stop the container: what cannot be written is lost, and is read all the same.
        with contextlib.suppress(OSError):
            while block:
                block = block[os.write(self._target, block) :]
