"""A registry that has no image, and says so as registries do that refuse, limit or fail.

The repository's first word chooses the answer. Knows no engine.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from lab.server import HttpServer

LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OTHER_MACHINE = {
    "schemaVersion": 2,
    "mediaType": LIST,
    "manifests": [
        {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 1,
            "digest": f"sha256:{64 * '0'}",
            "platform": {"architecture": "s390x", "os": "linux"},
        }
    ],
}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


# the status and the body of each answer, as the distribution specification words them
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "busy": (429, _error("TOOMANYREQUESTS", "You have reached your pull rate limit.")),
    "private": (401, _error("UNAUTHORIZED", "authentication required")),
    "denied": (403, _error("DENIED", "requested access to the resource is denied")),
    "ill": (503, _error("UNAVAILABLE", "service unavailable")),
    "elsewhere": (200, OTHER_MACHINE),
}


class RefusingRegistry(HttpServer):
    """Listens on `ip`, 127.0.0.1 unless said otherwise, at a port of its own."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        super().__init__(_Answer, ip)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = default_request_version = "HTTP/1.1"
    greeting: ClassVar[tuple[int, dict[str, Any]]] = (200, {})

    def do_GET(self) -> None:
        first = self.path.removeprefix("/v2/").partition("/")[0]
        status, body = ANSWERS.get(first, self.greeting)
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", LIST if "manifests" in body else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the tests' stderr."""
