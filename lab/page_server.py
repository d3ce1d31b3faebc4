"""`python -m lab.page_server`: serves a built page from memory on 127.0.0.1, below a path that is a secret."""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def main() -> None:
    """Serve until the end what the environment's `BYOC_LAB_PAGE` says."""
    served = json.loads(os.environ.pop("BYOC_LAB_PAGE"))
    files = {f"/{served['key']}/{name}": content for name, content in _files(served).items()}
    prefix = f"/{served['key']}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            content = files.get(self.path.partition("?")[0])
            status = HTTPStatus.OK if content else HTTPStatus.NOT_FOUND
            kind, body = content or ("text/plain", b"There is nothing here.\n")
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
            super().log_message("%s", (format % args).replace(prefix, ""))

    ThreadingHTTPServer(("127.0.0.1", served["port"]), Handler).serve_forever()


def _files(served: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    directory = Path(served["directory"])
    files = {
        str(file.relative_to(directory)): (
            TYPES.get(file.suffix, "application/octet-stream"),
            file.read_bytes(),
        )
        for file in directory.rglob("*")
        if file.is_file()
    }
    files[""] = files["index.html"]
    files["config.json"] = (TYPES[".json"], json.dumps(served["config"]).encode())
    return files


if __name__ == "__main__":
    main()
