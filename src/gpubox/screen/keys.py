"""The keys by which a person leaves a box that runs on, looked for in what is typed.

Pure: bytes in; what goes on to the box, and whether the keys were among it, out.
"""

from __future__ import annotations

_CONTROL = [f"ctrl-{key}" for key in "@abcdefghijklmnopqrstuvwxyz[\\]^_"]
"""By their codes; https://github.com/moby/term/blob/main/ascii.go"""


def detach_sequence(text: str) -> bytes:
    """The bytes of Docker's `detachKeys` (`ctrl-p,ctrl-q`); ValueError for what is none."""
    return bytes(_code(key) for key in text.split(","))


def _code(key: str) -> int:
    if key == "DEL":
        return 127
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key not in _CONTROL:
        raise ValueError(f"unknown key '{key}'")
    return _CONTROL.index(key)


class DetachKeys:
    """Looks for the sequence in what is typed, and holds back what may be its beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence, self._held = sequence, b""

    def find(self, typed: bytes) -> tuple[bytes, bool]:
        """What goes to the box, and whether the sequence was typed behind it."""
        typed = self._held + typed
        passed, found, _ = typed.partition(self._sequence)
        if found:
            return passed, True
        longest = len(self._sequence) - 1
        held = next(n for n in range(longest, -1, -1) if typed.endswith(self._sequence[:n]))
        passed, self._held = typed[: len(typed) - held], typed[len(typed) - held :]
        return passed, False
