"""A real registry on loopback, and a slow, breakable way to it.

Knows no engine: `127.0.0.0/8` is taken over plain HTTP by every engine without any setting.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import LabError
from lab.machine import INSTALL, SYSTEM, found, free_port
from lab.server import Server
from lab.traces import new_folder, remove, sweep
from lab.waiting import PATIENCE, wait_until

WELCOME = b"GET /v2/ HTTP/1.0\r\n\r\n"


class Registry(Server):
    """`docker-registry serve` with its own port and folder; `accounts` are names and passwords."""

    def __init__(self, accounts: dict[str, str] | None = None) -> None:
        self._accounts = accounts or {}
        self.folder = Path()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._held = contextlib.ExitStack()

    @property
    def address(self) -> str:
        """What an image's name begins with: `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> Registry:
        """Serving; after `kill` on the same port and with what was pushed."""
        if not self.port:
            sweep()
            self.folder, lock = new_folder()
            self._held.callback(os.close, lock)
            self.port = free_port()
            self._configure()
        self._launch()
        return self

    def kill(self) -> None:
        """Gone from one moment to the next; its folder stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        if self.port:
            remove(self.folder)
            self._held.close()
            self.port = 0

    def _configure(self) -> None:
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address},
        }
        if self._accounts:
            (self.folder / "htpasswd").write_text(self._passwords())
            config["auth"] = {
                "htpasswd": {"realm": "gpubox lab", "path": str(self.folder / "htpasswd")}
            }
        (self.folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML

    def _passwords(self) -> str:
        """In bcrypt, the only form that the registry takes."""
        command = [found("htpasswd", SYSTEM), "-niB"]
        return "".join(
            subprocess.run(
                [*command, name], input=password, check=True, capture_output=True, text=True
            ).stdout
            for name, password in self._accounts.items()
        )

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("/usr/bin/setpriv", "--pdeathsig", "KILL"),
                    *(found("docker-registry", SYSTEM), "serve", str(self.folder / "config.yml")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._serves, what="the registry's first answer")
        except BaseException:
            self.stop()
            raise

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"the registry died:\n{self.log.read_text()}", INSTALL)
        try:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
                connection.sendall(WELCOME)
                return connection.recv(100).startswith(b"HTTP/1.")
        except ConnectionError:
            return False


class Throttle(Server):
    """Forwards TCP to 127.0.0.1:`target` at `rate` bytes a second, all connections together.

    It listens in the network namespace of the process `near`, whose loopback is another one.
    """

    def __init__(self, target: int, rate: int, near: int | None = None) -> None:
        self._target = target
        self.rate = rate
        self._server = _server_near(near) if near else socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.passed = 0  # bytes that went from the target to its clients
        self.until = math.inf  # bytes after which it stops, so that what is begun is not over
        self._lock = threading.Lock()
        self._next = time.monotonic()  # when the next byte may go
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait(self, count: int) -> None:
        """Until so many bytes have gone to its clients."""
        wait_until(lambda: self.passed > count, what=f"byte {count}")

    @property
    def busy(self) -> bool:
        """Whether anybody is connected."""
        with self._lock:
            return bool(self._open)

    def start(self) -> Throttle:
        self._spawn(self._accept)
        return self

    def cut(self) -> int:
        """Breaks every connection of this moment; how many sockets those were."""
        with self._lock:
            broken = list(self._open)
        for connection in broken:
            with contextlib.suppress(OSError):  # it broke by itself just now
                connection.shutdown(socket.SHUT_RDWR)
        return len(broken)

    def stop(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        while self._threads:
            self.cut()
            self._threads.pop().join()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()  # before it is listed: stop() may join all that are
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:  # closed by stop()
                return
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            target = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        except OSError:
            client.close()
            return
        target.settimeout(None)
        with self._lock:
            self._open |= {client, target}
        self._spawn(self._pump_both, client, target)

    def _pump_both(self, client: socket.socket, target: socket.socket) -> None:
        over = threading.Event()
        upward = threading.Thread(target=self._pump, args=(client, target, over), daemon=True)
        upward.start()
        self._pump(target, client, over, throttled=True)
        upward.join()
        with self._lock:
            self._open -= {client, target}
        client.close()
        target.close()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        over: threading.Event,
        *,
        throttled: bool = False,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                if throttled and not self._wait_turn(len(data), over):
                    break
                sink.sendall(data)
        over.set()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait_turn(self, size: int, over: threading.Event) -> bool:
        """Until these bytes may pass; False once their connection is broken."""
        with self._lock:
            self.passed += size
            self._next = max(self._next, time.monotonic()) + size / self.rate
            moment = self._next
        while self.passed > self.until:
            if over.wait(0.01):
                return False
        return not over.wait(max(0.0, moment - time.monotonic()))


def _server_near(pid: int) -> socket.socket:
    """A socket stays in the network namespace of the thread that made it, and that one ends."""

    def enter() -> socket.socket:
        with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_server(("127.0.0.1", 0))

    with ThreadPoolExecutor(1) as made:
        return made.submit(enter).result()
