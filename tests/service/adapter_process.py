"""The adapter as a process of its own; it can be killed and started again on the same port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]


class Adapter:
    """The process under test; it can be killed and started again on the same port."""

    def __init__(self, directory: Path, settings: Mapping[str, Any], port: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", port)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = directory / "adapter.json"
        self._config.write_text(json.dumps({"port": self.port, **settings}))
        self.log = directory / "adapter.log"
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "BYOC_ADAPTER_CONFIG": str(self._config)}
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "adapter"]
            self.process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.until(self._ready, "the adapter to be ready", seconds=60)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Signal the process and see that it ended of this signal (a graceful end raises it again)."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=15) == -number, self.log.read_text()[-4000:]

    def until(self, condition: Callable[[], object], what: str, seconds: float = 15) -> None:
        """Wait for a condition; on time-out fail with the adapter's log."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s for {what}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.01)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False
