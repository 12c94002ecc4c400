"""How an engine sends a box's output where it has no terminal. Knows no engine."""

from __future__ import annotations

import struct


def frame(stream: int, payload: bytes) -> bytes:
    """Bytes of standard output (1), standard error (2), or the engine's own error (3)."""
    return struct.pack(">BxxxL", stream, len(payload)) + payload
