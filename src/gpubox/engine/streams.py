"""A box's side of its streams: a socket that never blocks, and the engine's frames taken apart.

Bytes pass through. Knows no terminal, and of Docker only the eight-byte header of a frame.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from gpubox.errors import EngineError, why


class BoxStream(Protocol):
    """A box's standard streams, never blocking."""

    def fileno(self) -> int: ...
    def recv(self, limit: int) -> bytes | None:
        """None: nothing now; empty: the end. EngineError when the connection broke."""

    def send(self, data: memoryview) -> int:
        """How many bytes went; 0: none now. OSError when the box's input is gone."""

    def close_write(self) -> bool:
        """End the box's input; its output goes on. False: call again when the socket takes more."""

    def pending(self) -> bool:
        """Whether bytes were received already, of which a poll of the socket would not tell."""


_REMEMBERED = 512  # bytes
_FRAME_HEADER = re.compile(rb"[\1\2]\0\0\0.{4}", re.DOTALL)


class SocketStream:
    """A plain socket (unix, TCP). `early` are bytes that came together with the engine's answer.

    The end of what was received is remembered: it may tell why a box has ended.
    """

    _not_now: tuple[type[OSError], ...] = (BlockingIOError,)
    # the other end has closed without reading all that we sent; all that it sent has been read
    _over: tuple[type[OSError], ...] = (ConnectionResetError,)

    def __init__(self, connection: socket.socket, early: bytes = b"") -> None:
        connection.setblocking(False)
        self._socket, self._early = connection, early
        self._last = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, limit: int) -> bytes | None:
        if self._early:
            first, self._early = self._early[:limit], self._early[limit:]
            return self._remembered(first)
        try:
            return self._remembered(self._socket.recv(limit))
        except self._not_now:
            return None
        except self._over:
            return b""
        except OSError as error:
            raise EngineError(f"the connection to the box broke: {why(error)}") from None

    def last_words(self) -> str:
        """The last text that was received, without the headers of its frames."""
        return _FRAME_HEADER.sub(b"", self._last).decode(errors="replace")

    def _remembered(self, data: bytes) -> bytes:
        self._last = (self._last + data[-_REMEMBERED:])[-_REMEMBERED:]
        return data

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except self._not_now:
            return 0

    def close_write(self) -> bool:
        with suppress(OSError):  # the other end may be gone already
            self._socket.shutdown(socket.SHUT_WR)
        return True

    def pending(self) -> bool:
        return bool(self._early)


class TlsStream(SocketStream):
    """A socket behind TLS."""

    _socket: ssl.SSLSocket
    _not_now = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    _over = (ConnectionResetError, ssl.SSLZeroReturnError)
    _goodbye: bytes | None = None

    def close_write(self) -> bool:
        if self._goodbye is None:
            while waiting := self._socket.pending():  # OpenSSL drops it when it ends our direction
                self._early += self._socket.recv(waiting)
            self._goodbye = _close_notify(self._socket)
        try:
            self._goodbye = self._goodbye[os.write(self.fileno(), self._goodbye) :]
        except BlockingIOError:
            return False
        except OSError:  # the other end is gone already
            return True
        return not self._goodbye

    def pending(self) -> bool:
        return super().pending() or self._socket.pending() > 0


def stream(connection: socket.socket, early: bytes) -> SocketStream:
    """A box's stream over a connection; `early` is what of it was read already."""
    kind = TlsStream if isinstance(connection, ssl.SSLSocket) else SocketStream
    return kind(connection, early)


def _close_notify(connection: ssl.SSLSocket) -> bytes:
    """The TLS record (close_notify) that ends our direction of a connection, not sent yet.

    `SSLSocket.shutdown` would leave ciphertext to read
    (https://github.com/python/cpython/issues/63080), and OpenSSL's own shutdown also reads from the
    socket, and drops what it gets. So a socket pair stands under the connection's descriptor
    meanwhile: OpenSSL writes the record there, and finds nothing to read.
    """
    number, real = connection.fileno(), os.dup(connection.fileno())
    own, other = socket.socketpair()
    with own, other:
        own.setblocking(False)
        os.dup2(own.fileno(), number)
        try:
            with suppress(OSError):  # it waits for an answer, and the pair has none
                connection._sslobj.shutdown()  # type: ignore[attr-defined]
        finally:
            os.dup2(real, number, inheritable=False)
            os.close(real)
        own.shutdown(socket.SHUT_WR)  # so that recv returns even if no record was written
        return other.recv(1 << 14)


_HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR, _SYSTEM_ERROR = 1, 2, 3  # 0 is the input's echo


class Frames:
    """Takes the engine's framed output apart, wherever it was cut into pieces."""

    def __init__(self) -> None:
        self._header, self._complaint = bytearray(), bytearray()
        self._stream = self._left = 0

    def pieces(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """The number of a stream and bytes of it, for each part of a frame in `data`.

        Raises EngineError where the engine reports one, or does not send frames.
        """
        rest = memoryview(data)
        while rest:
            if not self._left:
                rest = self._begin(rest)
                continue
            piece, rest = rest[: self._left], rest[self._left :]
            self._left -= len(piece)
            if self._stream == _SYSTEM_ERROR:
                self._complain(piece)
            else:
                yield self._stream, piece

    def _begin(self, rest: memoryview) -> memoryview:
        missing = _HEADER.size - len(self._header)
        self._header += rest[:missing]
        if len(self._header) == _HEADER.size:
            self._stream, self._left = _HEADER.unpack(self._header)
            self._header.clear()
            if self._stream > _SYSTEM_ERROR:
                raise EngineError(f"the engine's output has no stream {self._stream}")
        return rest[missing:]

    def _complain(self, piece: memoryview) -> None:
        self._complaint += piece
        if not self._left:
            text = self._complaint.decode(errors="replace").strip()
            raise EngineError(f"the engine broke off the output: {text}")
