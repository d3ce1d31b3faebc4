"""`aiida-byoc-adapter`: read the settings, serve until told to stop."""

from __future__ import annotations

import socket
import sys

import uvicorn

from adapter import log
from adapter.app import create_app
from adapter.channel import Channel
from adapter.connections import allow_connections, patient
from adapter.settings import SettingsError, load_settings

__all__ = ["main"]

# Longer than clients keep an idle connection: whoever closes first must not be the server.
_KEEP_ALIVE_SECONDS = 75
_SHUTDOWN_SECONDS = 5


class _Server(uvicorn.Server):
    """Ends what waits in the channel when it is told to stop; otherwise a poll would hold the process."""

    def __init__(self, config: uvicorn.Config, channel: Channel) -> None:
        super().__init__(config)
        self._channel = channel

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the channel, then the connections."""
        self._channel.close()
        await super().shutdown(sockets)


def main() -> int:
    """Run the adapter; return the exit code: 2 when the settings cannot be used."""
    log.configure()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"aiida-byoc-adapter: {error}\n")
        return 2
    allow_connections()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=patient(settings.request_seconds),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config, app.state.channel)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
