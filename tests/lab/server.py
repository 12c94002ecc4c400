"""What serves while a `with` lasts, or from `start` to `stop`. Knows nothing of what is served."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

S = TypeVar("S", bound="Server")


class Server(ABC):
    @abstractmethod
    def start(self) -> object: ...

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self: S) -> S:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class HttpServer(Server):
    """A handler's answers at a port of its own."""

    def __init__(
        self, handler: Callable[..., BaseHTTPRequestHandler], ip: str = "127.0.0.1"
    ) -> None:
        self._server = ThreadingHTTPServer((ip, 0), handler)
        self.address = f"{ip}:{self._server.server_port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
