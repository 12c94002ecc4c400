"""A box's side of its streams: a socket that never blocks, and the engine's frames taken apart.

Bytes pass through. Knows no terminal, and of Docker only the eight bytes before each piece.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from gpubox.errors import EngineError


class BoxStream(Protocol):
    """A box's standard streams, never blocking."""

    def fileno(self) -> int: ...
    def recv(self, limit: int) -> bytes | None:
        """None: nothing now; empty: the end. EngineError when the connection broke."""

    def send(self, data: memoryview) -> int:
        """How many bytes went; 0: none now. OSError when the box's input is gone."""

    def close_write(self) -> None:
        """The end of the box's input; its output goes on."""

    def pending(self) -> bool:
        """Whether bytes are here already that will not wake a poll."""


_REMEMBERED = 512  # bytes


class SocketStream:
    """A plain socket (unix, TCP). `early` came together with the engine's answer.

    `last` holds the end of what was received, which tells why a box has ended.
    """

    def __init__(self, connection: socket.socket, early: bytes = b"") -> None:
        connection.setblocking(False)
        self._socket, self._early = connection, early
        self.last = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, limit: int) -> bytes | None:
        if self._early:
            first, self._early = self._early[:limit], self._early[limit:]
            return first
        try:
            data = self._socket.recv(limit)
            self.last = data[-_REMEMBERED:] or self.last
            return data
        except BlockingIOError:
            return None
        except ConnectionResetError:  # all was read, but the other end did not read all of ours
            return b""
        except OSError as error:
            raise EngineError(f"the connection to the box broke: {said(error)}") from None

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def close_write(self) -> None:
        with suppress(OSError):  # the other end may be gone already
            self._socket.shutdown(socket.SHUT_WR)

    def pending(self) -> bool:
        return bool(self._early)


_HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR, _SYSTEM_ERROR = 1, 2, 3  # 0 is the input's echo


class Frames:
    """The engine's framed output, cut anywhere, as (stream, piece of its bytes)."""

    def __init__(self) -> None:
        self._header, self._complaint = bytearray(), bytearray()
        self._stream = self._left = 0

    def pieces(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Raises EngineError where the engine reports one, or does not send frames."""
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


def said(error: OSError) -> str:
    """The system's words for what went wrong."""
    return (error.strerror or str(error)).lower()
