"""The container's stdout and stderr on their way into the job's: as they come, but never more than was agreed.

A container writes into pipes, so that a log of any size costs neither disk nor memory. At the limit a line says so; of
what follows only the end is kept, and written when the container is gone. Bytes are bytes: nothing is decoded.
"""

import select
import time

from .light import os, suppress

LAST_BYTES = 64 * 1024
"""How much of the end is kept of a stream that went beyond its limit."""

_END_BYTES = 4096
_BLOCK, _LARGE_BLOCK = 1 << 16, 1 << 20
"""What a pipe holds; what it holds for who writes that much."""
_SET_PIPE_SIZE = 1031
_LINGER_SECONDS = 0.1
_DRAIN_SECONDS = 5.0


class Streams:
    """Two pipes, `out` and `err`, to be given to the container, and what carries their content away."""

    def __init__(self, most, targets=(1, 2)):
        """`targets`: descriptors, or paths of files, each made once there is something to write."""
        self._pumps = [_Pump(target, most) for target in targets]
        self.out, self.err = (pump.inlet for pump in self._pumps)

    @property
    def last_of_err(self):
        """The end of what came on stderr."""
        return self._pumps[1].end

    def release(self):
        """Leave the container's ends to it alone."""
        for pump in self._pumps:
            pump.release()

    def start(self):
        """Carry in threads. Not earlier than it is released: no process is made beside threads."""
        for pump in self._pumps:
            pump.start()

    def carry(self, told, heard):
        """Carry without threads while somebody may write to `told`; `heard` gets what is written there.

        Streams end with the container in nearly all cases. Where one does not, a thread goes on with it, so that nobody
        who is waited for meanwhile waits for us.
        """
        pumps = {pump.source: pump for pump in self._pumps}
        waiting = select.poll()
        for source in (told, *pumps):
            waiting.register(source, select.POLLIN)
        left, until = {told, *pumps}, None
        while left and (until is None or time.monotonic() < until):
            for source, _ in waiting.poll(None if until is None else _LINGER_SECONDS * 1000):
                if source == told:
                    block = os.read(told, _BLOCK)
                    heard(block)
                else:
                    block = pumps[source].carry()
                if not block:
                    waiting.unregister(source)
                    left.discard(source)
                    if source == told:
                        until = time.monotonic() + _LINGER_SECONDS
        for source in left - {told}:
            pumps[source].start()

    def finish(self):
        """Write what is left, once the container is gone. A process that outlived it keeps nobody waiting."""
        for pump in self._pumps:
            pump.finish()


class _Pump:
    """Carries one stream to its target: its first `most` bytes, and its last."""

    def __init__(self, target, most):
        self.source, self.inlet = os.pipe()
        self._told = self._telling = -1
        self._thread = None
        self._block = _BLOCK
        self._target, self._opened, self._most, self._room = target, -1, most, most
        self._beyond, self._last, self.end = 0, b"", b""

    def release(self):
        os.close(self.inlet)

    def start(self):
        from threading import Thread

        self._told, self._telling = os.pipe()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def carry(self):
        """Carry what is there, or comes next; return the end of it: nothing once the stream has ended."""
        block = os.read(self.source, self._block)
        if len(block) == _BLOCK:
            self._block = _LARGE_BLOCK
            from fcntl import fcntl

            with suppress(OSError):  # for speed alone
                fcntl(self.source, _SET_PIPE_SIZE, _LARGE_BLOCK)
        if block:
            self._take(block)
        return block

    def finish(self):
        if self._thread is not None:
            self._thread.join(_DRAIN_SECONDS)
            os.write(self._telling, b".")
            self._thread.join()
            os.close(self._told)
            os.close(self._telling)
        os.close(self.source)
        if self._beyond:
            left_out = self._beyond - len(self._last)
            self._write(b"[byoc: %d bytes are left out here]\n%s" % (left_out, self._last))
        if self._opened != -1:
            os.close(self._opened)

    def _run(self):
        waiting = select.poll()
        waiting.register(self.source, select.POLLIN)
        waiting.register(self._told, select.POLLIN)
        while self._told not in dict(waiting.poll()):
            if not self.carry():
                return
        # Somebody holds the other end still: what is in the pipe now is all that counts.
        os.set_blocking(self.source, False)
        with suppress(BlockingIOError):
            self._take(os.read(self.source, _LARGE_BLOCK))

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
        with suppress(OSError):
            if block and isinstance(self._target, str):
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._target = self._opened = os.open(self._target, flags, 0o600)
            while block:
                block = block[os.write(self._target, block) :]
