"""A screen that is drawn over and over, until somebody has seen enough.

Knows keys, signals, the window's size and a terminal's second screen, and nothing of what it draws.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import tty as tty_modes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

from gpubox.engine.streams import STDOUT
from gpubox.screen.standard import window_size

T = TypeVar("T")
STDIN = 0

# To the second screen, the cursor hidden, long lines cut; and back to how it was.
_ENTER, _LEAVE = b"\x1b[?1049h\x1b[?25l\x1b[?7l", b"\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _TO_THE_END_OF_LINE, _TO_THE_END = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_QUITS = b"qQ\x1b"


class _Terminated(BaseException):
    """A signal, by its number, that ends the program once the terminal is as it was."""


def watch(look: Callable[[], T], draw: Callable[[T, int], Sequence[bytes]], seconds: float) -> None:
    """Look every so many seconds, and draw what was seen for the window's columns.

    Ends by `q`, Ctrl-C, or with the terminal. A new size of the window draws it anew at once.
    """
    try:
        with _second_screen() as screen:
            while True:
                seen, due = look(), monotonic() + seconds
                while monotonic() < due:
                    rows, columns = window_size(STDOUT) or (24, 80)
                    _write(_frame(draw(seen, columns), rows))
                    if screen.wants_to_leave(due):
                        return
    except KeyboardInterrupt:
        return
    except _Terminated as ended:
        signal.raise_signal(ended.args[0])


def _frame(lines: Sequence[bytes], rows: int) -> bytes:
    """The bytes that draw the lines over what is there, so that nothing flickers."""
    if len(lines) > rows:
        more = f"{len(lines) - rows + 1} more lines; a higher window shows them"
        lines = [*lines[: rows - 1], more.encode()]
    return _HOME + (_TO_THE_END_OF_LINE + b"\r\n").join(lines) + _TO_THE_END


class _Screen:
    """The terminal while it is ours: given back when we are stopped, and taken again."""

    def __init__(self) -> None:
        self._read, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        self._before: list[Any] | None = None
        with suppress(termios.error):  # keys come from elsewhere, or not at all
            self._before = termios.tcgetattr(STDIN)

    def enter(self, *_: object) -> None:
        if self._before:
            tty_modes.setcbreak(STDIN, termios.TCSANOW)
        _write(_ENTER)
        self.wake()

    def leave(self) -> None:
        with suppress(OSError, termios.error):  # it may be gone
            if self._before:
                termios.tcsetattr(STDIN, termios.TCSANOW, self._before)
            _write(_LEAVE)

    def stop(self, *_: object) -> None:
        """Ctrl-Z; SIGCONT enters again."""
        self.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.stop)

    def wake(self, *_: object) -> None:
        with suppress(BlockingIOError):
            os.write(self._woken, b" ")

    def wants_to_leave(self, due: float) -> bool:
        """Wait for a key, a new size or the time `due`; whether it was a key that ends this."""
        keys = [STDIN] if self._before else []
        ready, _, _ = select.select([self._read, *keys], [], [], max(0, due - monotonic()))
        if self._read in ready:
            os.read(self._read, 1024)
        if STDIN not in ready:
            return False
        typed = os.read(STDIN, 1024)
        return not typed or typed in [bytes([key]) for key in _QUITS]


@contextmanager
def _second_screen() -> Iterator[_Screen]:
    screen = _Screen()
    heeded: dict[signal.Signals, Callable[..., None]] = {
        signal.SIGWINCH: screen.wake,
        signal.SIGTSTP: screen.stop,
        signal.SIGCONT: screen.enter,
        signal.SIGTERM: _terminate,
        signal.SIGQUIT: _terminate,
        signal.SIGHUP: _terminate,
    }
    before = {number: signal.signal(number, handler) for number, handler in heeded.items()}
    screen.enter()
    try:
        yield screen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        screen.leave()


def _terminate(number: int, *_: object) -> None:
    raise _Terminated(number)


def _write(text: bytes) -> None:
    while text:
        text = text[os.write(STDOUT, text) :]
